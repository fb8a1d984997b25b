"""Find the part of a configuration that describes the module around a tensor."""

import re
from collections.abc import Iterator, Mapping

# What modules are called whose configuration stands under the names on the left, in transformers' models of several parts.
SYNONYMS = {
    "vision": ("vision", "visual", "image", "vit", "pixel"),
    "audio": ("audio", "speech", "sound"),
    "text": ("text", "language", "llm", "lm"),
    "llm": ("text", "language", "llm", "lm"),
}
# Sections that describe the language model, which people call the model.
TEXT_CONFIGS = ("text_config", "llm_config")
# Sections that are configurations of a whole model under a bare name: those of EncoderDecoderModel and of RagModel.
BARE = ("encoder", "decoder", "question_encoder", "generator", "text_encoder", "audio_encoder")
# Sections that describe no module of their own.
NO_MODULE = re.compile(r"(quant\w*|compression|generation|rope|attn|attention|ffn|pretrained|adapter|loss)_config")
MAX_NESTING = 4


def nearest_config(key: str, config: Mapping[str, object]) -> Mapping[str, object]:
    """Return the section of a configuration that describes the module of a tensor, or else that of the language model."""
    parts = key.lower().split(".")
    for _ in range(MAX_NESTING):
        sections = dict(_sections(config))
        found = next(
            (
                (inner, place)
                for place, part in enumerate(parts)
                for name, inner in sections.items()
                if _names(part, name)
            ),
            None,
        )
        if found is not None:
            config, place = found
            parts = parts[place + 1 :]
        elif text := next((sections[name] for name in TEXT_CONFIGS if name in sections), None):
            config = text
        else:
            break
    return config


def _sections(config: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the sections of a configuration that describe modules."""
    for name, inner in config.items():
        if isinstance(inner, Mapping) and isinstance(name, str) and not NO_MODULE.fullmatch(name):
            if name.endswith("_config") or (name in BARE and "model_type" in inner):
                yield name, inner


def _names(part: str, section: str) -> bool:
    """Return whether a component of a name is that of the module which a section describes."""
    stem = section.removesuffix("_config")
    words = part.split("_")
    return part == stem or any(
        word.startswith(name) if len(name) > 3 else word == name
        for name in SYNONYMS.get(stem, (stem,))
        for word in words
    )
