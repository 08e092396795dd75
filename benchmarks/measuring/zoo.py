"""Models of other libraries, built without weights on the meta device, and imported."""

import csv
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.measuring.machine import peak_memory
from benchmarks.measuring.report import Unavailable
from hotnas_torch.importing import trace
from hotnas_torch.importing.computation import Computation, Node

__all__ = [
    "TRANSFORMERS",
    "Published",
    "computation_of",
    "first_import",
    "imported",
    "published_models",
    "second_import",
    "timm_model",
    "transformer_model",
]

TRANSFORMERS = (
    *("Albert", "Bart", "Bert", "BigBird", "Blip2", "Bloom", "Canine", "CLIP", "CLIPText"),
    *("CLIPVision", "ConvBert", "ConvNext", "ConvNextV2", "Deberta", "DebertaV2", "DeiT"),
    *("Dinov2", "DistilBert", "Electra", "Ernie", "Falcon", "FNet", "Funnel", "GPT2"),
    *("GPTBigCode", "GPTJ", "GPTNeo", "GPTNeoX", "Gemma", "Hubert", "LayoutLM", "Llama"),
    *("Longformer", "MBart", "MPNet", "Mamba", "Mistral", "MobileBert", "MobileViT", "OPT"),
    *("Pegasus", "Phi", "Qwen2", "ResNet", "RoFormer", "Roberta", "Segformer"),
    *("SqueezeBert", "Swin", "T5", "ViT", "Wav2Vec2", "Whisper", "XGLM", "XLNet"),
)
"""Models of transformers whose default configurations are built: `BertModel`, and so on."""


@dataclass(frozen=True, slots=True)
class Published:
    """A model of the published table.

    Attributes:
        name: Without the tag that says how it was trained.
        size: Side of its images.
        parameters: In millions.
    """

    name: str
    size: int
    parameters: float


def published_models(folder: Path) -> list[Published]:
    """Return the distinct models of the published table, the first row of each name.

    Raises:
        Unavailable: The table is not there.
    """
    path = folder / "timm" / "results_imagenet_half.csv"
    if not path.is_file():
        raise Unavailable(f"{path} is no file")
    found: dict[str, Published] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            name = row["model"].partition(".")[0]
            size = int(row["img_size"])
            found.setdefault(name, Published(name, size, float(row["params_M"])))
    return list(found.values())


def timm() -> Any:
    """Return the library timm, also where torchvision's compiled operators do not load.

    Raises:
        Unavailable: It is not installed.
    """
    _declare_torchvision()
    try:
        import timm as found
    except ImportError as error:
        raise Unavailable(
            f"timm is needed: pip install --no-deps timm torchvision huggingface_hub ({error})"
        ) from error
    return found


def _declare_torchvision() -> None:
    """Declare torchvision's operators where its compiled ones do not load.

    Schemas are all that building a model needs.
    """
    if "torchvision" in _LIBRARIES:
        return
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        pass
    else:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    names = ["roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d"]
    for name in ["qnms", *names, *(f"_{name}_backward" for name in names)]:
        library.define(f"{name}(Tensor x) -> Tensor")
    _LIBRARIES["torchvision"] = library


_LIBRARIES: dict[str, Any] = {}


def timm_model(model: Published) -> tuple[nn.Module, Any]:
    """Build a model of timm on the meta device, with an example of its images."""
    library = timm()
    with torch.device("meta"):
        built = library.create_model(model.name, pretrained=False)
    channels, height, width = built.default_cfg["input_size"]
    if not built.default_cfg.get("fixed_input_size", False):
        height = width = model.size
    return built, torch.empty(1, channels, height, width, device="meta")


def transformer_model(name: str) -> tuple[nn.Module, Any]:
    """Build a model of transformers from its default configuration, with example inputs."""
    _declare_torchvision()
    import transformers

    config = getattr(transformers, f"{name}Config")()
    if name == "Blip2":  # where images go among the tokens, which the default leaves open
        config.image_token_index = 0
    if hasattr(config, "use_cache"):
        config.use_cache = False
    with torch.device("meta"):
        built = getattr(transformers, f"{name}Model")(config)
    main = built.main_input_name
    # A recurrence without its own kernel is a loop over tokens; sparse attention needs many.
    length = {"Mamba": 16, "BigBird": 768, "Longformer": 512}.get(name, 128)
    longest = getattr(config, "max_position_embeddings", None) or 0  # -1 of XLNet is no limit
    length = min(length, longest) if longest > 0 else length
    inputs: dict[str, Any] = {}
    seen = getattr(config, "vision_config", None)
    if main == "pixel_values" or seen is not None:
        seen = seen or config
        size = getattr(seen, "image_size", 224)
        side = size if isinstance(size, int) else size[0]
        images = torch.empty(1, getattr(seen, "num_channels", 3), side, side, device="meta")
        inputs["pixel_values"] = images
    elif main == "input_features":
        length = 2 * config.max_source_positions
        inputs[main] = torch.empty(1, config.num_mel_bins, length, device="meta")
    elif main == "input_values":
        inputs[main] = torch.empty(1, 16000, device="meta")
    else:
        inputs[main] = torch.zeros(1, length, dtype=torch.int64, device="meta")
    if name in ("CLIP", "Blip2"):  # of images and texts
        inputs["input_ids"] = torch.zeros(1, 64, dtype=torch.int64, device="meta")
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = torch.zeros(1, 32, dtype=torch.int64, device="meta")
    return built, inputs


def imported(
    names: Iterable[str],
    build: Callable[[str], tuple[nn.Module, Any]],
    cache: Path,
    measure: Callable[[nn.Module, Any], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Import models one after the other, each once: what is in the cache is read from there.

    Args:
        names: Of the models.
        build: Makes a module and example inputs of a name.
        cache: Folder with a JSON file per model.
        measure: What is done with each: `first_import` or `second_import`.

    Yields:
        A row per model: its `name`, and what `measure` found; or `error`.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = cache / f"{name}.json"
        if path.is_file():
            yield json.loads(path.read_text(encoding="utf-8"))
            continue
        row: dict[str, Any] = {"name": name}
        try:
            model, inputs = build(name)
        except Exception as error:  # a model that its own library cannot build
            row["error"] = f"not built: {type(error).__name__}: {error}"[:300]
        else:
            try:
                row |= measure(model, inputs)
            except Exception as error:  # counted, and named in the report
                row["error"] = f"{type(error).__name__}: {error}"[:300]
        part = path.with_suffix(".part")
        part.write_text(json.dumps(row), encoding="utf-8")
        part.replace(path)
        yield row


def first_import(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """Import a model.

    Returns:
        `seconds`, and `processor` seconds of it; `peak` memory of the process; `parameters`, and
        `built` ones, of the module; `multiply_adds`, `operations`, `cells`, `distinct`, `lost`,
        `warnings`; `computation`, which `computation_of` reads.
    """
    begun, busy = time.perf_counter(), time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        computation = trace(model, inputs)
        network = computation.network()
    return {
        "seconds": time.perf_counter() - begun,
        "processor": time.process_time() - busy,
        "peak": peak_memory(),
        "parameters": computation.parameters,
        "built": sum(parameter.numel() for parameter in model.parameters()),
        "module": type(model).__module__,
        "multiply_adds": computation.multiply_adds,
        "operations": len(computation.nodes),
        "cells": network.num_cells,
        "distinct": len(set(network.cells)),
        "lost": list(computation.lost),
        "warnings": [str(w.message)[:300] for w in caught if "no known kind" in str(w.message)],
        "computation": asdict(computation),
    }


def computation_of(row: Mapping[str, Any]) -> Computation:
    """Return the computation that `first_import` wrote."""
    written = dict(row["computation"])
    for name in ("nodes", "outputs", "lost"):
        written[name] = tuple(written[name])
    written["nodes"] = tuple(
        Node(**node | {name: tuple(node[name]) for name in ("inputs", "scope", "shape")})
        for node in written["nodes"]
    )
    return Computation(**written)


def declared_backwards(model: nn.Module) -> int:
    """Turn the order in which modules declare their parts; sequences keep theirs.

    Returns:
        Number of modules whose parts have another order now.
    """
    turned = 0
    for module in list(model.modules()):
        parts = module._modules
        if len(parts) > 1 and not isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            module._modules = dict(reversed(parts.items()))
            turned += 1
    return turned


def second_import(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """Import a model whose parts are declared in the opposite order; same network, it should be.

    Returns:
        `turned`, the number of modules with another order, and `network`.
    """
    turned = declared_backwards(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = trace(model, inputs).network()
    return {"turned": turned, "network": network.to_json()}
