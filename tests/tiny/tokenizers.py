"""A byte-level tokenizer with each family's special tokens: no training, no download, every text round-trips."""

from collections.abc import Sequence
from itertools import pairwise

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

VOCABULARY = 300  # 256 bytes and some special tokens
_QWEN = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_CHAT = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n"
    "{{m['content'] if m['content'] is string else m['content'][0]['text']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def t5() -> PreTrainedTokenizerFast:
    """Text, then ``</s>``."""
    after = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    core = _core(("<pad>", "</s>", "<unk>"), after)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=512, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def clip() -> PreTrainedTokenizerFast:
    """Start, text, end; at most 77 tokens."""
    begin, end = "<|startoftext|>", "<|endoftext|>"
    after = processors.TemplateProcessing(single=f"{begin} $A {end}", special_tokens=[(begin, 0), (end, 1)])
    core = _core((begin, end), after)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=77, pad_token=end, bos_token=begin, eos_token=end
    )


def qwen(max_length: int = 512) -> PreTrainedTokenizerFast:
    """With a chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_core(_QWEN), model_max_length=max_length, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = _CHAT
    return tokenizer


def templated(template: str, prefix_tokens: int) -> PreTrainedTokenizerFast:
    """A tokenizer to which the text before ``{}`` in ``template`` is exactly ``prefix_tokens`` tokens.

    Pipelines that crop a template of known length would otherwise crop into it, or the prompt, at a byte's grain.
    """
    prefix, suffix = template.split("{}")
    cuts = [len(prefix) * i // prefix_tokens for i in range(prefix_tokens + 1)]
    pieces = dict.fromkeys(prefix[a:b] for a, b in pairwise(cuts))
    core = _core(("<pad>", "</s>", suffix, *pieces))
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=1024, pad_token="<pad>", eos_token="</s>")


def _core(specials: Sequence[str], after: processors.TemplateProcessing | None = None) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate((*specials, *alphabet))}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(specials))
    if after is not None:
        core.post_processor = after
    return core
