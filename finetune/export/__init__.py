"""`python -P -m finetune --export SPEC.json`: one adapter as another form, checked before it is there under its name.

```
weights.py      base + LoRA, a tensor at a time          families.py    which models llama.cpp knows, and their layout
merged.py       a folder of safetensors                  vocabulary.py  a tokenizer as a GGUF holds it
gguf_model.py   the merged model as one GGUF             modelfile.py   what Ollama needs beside it
gguf_lora.py    the LoRA alone as a GGUF                 check.py       the canary of what was written
```
"""
