"""Which rows speak of a model: hub ids, published names and a service's own names, brought together."""

from typing import Final

# Other weights for the same network take the same time.
_SAME_NETWORK: Final = {
    "wan2.1-i2v-14b-480p": "wan2.1-i2v-14b",
    "wan2.1-i2v-14b-720p": "wan2.1-i2v-14b",
    "qwen-image-2512": "qwen-image",
    "hunyuanvideo-community": "hunyuanvideo",
    "flux.1-krea-dev": "flux.1-dev",
}
_SUFFIXES: Final = ("-diffusers",)


def network(model: str) -> str:
    """``Wan-AI/Wan2.1-I2V-14B-480P-Diffusers`` → ``wan2.1-i2v-14b``: one name for all weights of one network."""
    name = model.rstrip("/").rpartition("/")[2].casefold()
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return _SAME_NETWORK.get(name, name)


def speaks_of(written: str, name: str, model_id: str) -> bool:
    """Whether a profile's ``written`` model is the spec's entry ``name`` of ``model_id``."""
    return written in (name, model_id) or network(written) in (network(model_id), network(name))
