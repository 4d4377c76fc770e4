"""A child process: transformers' `generate`, one by one and in batches padded on the left. Prints JSON.

`python -m benchmarks.engine.alone FOLDER CASES.json NEW_TOKENS BATCH`; a batch of 1 is one by one.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(folder: str, path: str, new_tokens: int, batch: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(conversations: list[Any]) -> list[str]:
        texts = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
        return list(tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    asked = json.loads(Path(path).read_text())
    answer(asked[:1])
    wall, cpu = time.perf_counter(), time.process_time()
    texts = [text for start in range(0, len(asked), batch) for text in answer(asked[start : start + batch])]
    taken = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps({**taken, "texts": texts}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
