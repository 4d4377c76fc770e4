"""LoRA layers that PEFT puts into a network of transformers, for the families whose layers are not written out here."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prompts.errors import BadInput
from service.engine.adapters import AdapterFiles
from service.engine.loras import check_finite


class PeftLayers:
    """The LoRA layers in a network, and which adapter they compute with."""

    def __init__(self, network: Any) -> None:
        self.names: dict[str, str] = {}  # ours → peft's, which may not hold a dot
        self._network = network
        self._peft: Any = None
        self._made = 0
        self._active: str | None = None

    def use(self, adapter: str | None) -> None:
        """Let the network compute with this adapter, or with none."""
        if adapter != self._active:
            self._activate(adapter)

    def add(self, name: str, files: AdapterFiles) -> None:
        """Lay an adapter over the weights, inactive. Raises BadInput where its weights do not fit this model."""
        try:
            self._add(name, files)
        finally:
            self._activate(None)  # peft makes the first adapter active, whether it was wanted or not

    def _add(self, name: str, files: AdapterFiles) -> None:
        from peft import LoraConfig, get_peft_model
        from peft.utils import set_peft_model_state_dict
        from safetensors.torch import load_file

        config = LoraConfig(
            r=files.rank,
            lora_alpha=files.alpha,
            use_rslora=files.rank_stabilized,
            target_modules=list(files.target_modules),
            inference_mode=True,
        )
        self._made += 1
        inner = f"adapter{self._made}"
        weights = load_file(files.weights)
        try:
            if self._peft is None:
                self._peft = get_peft_model(self._network, config, inner, autocast_adapter_dtype=False)
            else:
                self._peft.add_adapter(inner, config, autocast_adapter_dtype=False)
            result = set_peft_model_state_dict(self._peft, weights, adapter_name=inner)
            _check_fit(files, inner, weights, result)
        except (ValueError, RuntimeError, KeyError, BadInput) as error:
            self._forget(inner)
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"adapter {files.folder} does not fit the model: {error}", param="lora_path") from error
        self._network.eval().requires_grad_(False)
        self.names[name] = inner

    def remove(self, name: str) -> None:
        self._forget(self.names.pop(name))
        self._activate(None)
        gc.collect()

    def _activate(self, name: str | None) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        for layer in self._network.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.enable_adapters(name is not None)
                if name is not None:
                    layer.set_adapter([self.names[name]], inference_mode=True)
        self._active = name

    def _forget(self, inner: str) -> None:
        # Not by peft's delete_adapter, which makes another adapter active by itself. The configuration stays: peft
        # looks up that of its active adapter when the next one comes.
        from peft.tuners.tuners_utils import BaseTunerLayer

        for layer in self._network.modules():
            if isinstance(layer, BaseTunerLayer):
                for kind in (*layer.adapter_layer_names, *layer.other_param_names):
                    held: Any = getattr(layer, kind, {})
                    if hasattr(held, "pop") and inner in held:
                        held.pop(inner)


def _check_fit(files: AdapterFiles, inner: str, weights: Mapping[str, Tensor], result: Any) -> None:
    missing = [key for key in result.missing_keys if inner in key.split(".")]
    for key, why in [(key, "which this model does not have") for key in result.unexpected_keys] + [
        (key, f"which {files.weights.name} does not hold") for key in missing
    ]:
        raise BadInput(f"adapter {files.folder} is for {key!r}, {why}: train it on this model", param="lora_path")
    check_finite(files, weights)
