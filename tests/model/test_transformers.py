"""Architectures of Transformers, from small configurations: the head, and the rows as they are counted by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import reference
import torch
from torch import Tensor

import lazyrich
from lazyrich import DataError, HeadError

tf = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # Transformers' own, and of weak output directions

N, T, WORDS = 6, 9, 20
ENCODER = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
LANGUAGE = ENCODER | {"vocab_size": WORDS, "pad_token_id": 0}
SEQUENCES = {"vocab_size": WORDS, "d_model": 8, "pad_token_id": 0, "decoder_start_token_id": 0}
BART = SEQUENCES | {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
SPEECH = ENCODER | {
    "vocab_size": WORDS, "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8, "feat_extract_norm": "layer",
}  # fmt: skip
LENGTHS = torch.tensor([9, 4, 6, 9, 5, 7])
MASK = torch.arange(T) < LENGTHS[:, None]
IMAGES = torch.randn(N, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def tokens(*shape: int) -> Tensor:
    return torch.randint(1, WORDS, shape or (N, T), generator=torch.Generator().manual_seed(2))


def some(mask: Tensor, share: float = 0.5) -> Tensor:
    """About this share of what a mask keeps."""
    return mask & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(3)) < share)


@dataclass(frozen=True)
class Architecture:
    """A model with a batch, and which rows of its head count.

    Attributes:
        model: a class of Transformers.
        config: a class of Transformers, and its arguments.
        batch: what the model is called with.
        head: by its dotted name.
        kept: which of the head's rows count, in its outputs' shape; an integer: that many, and all of them.
    """

    model: str
    config: Callable[[], Any]
    batch: dict[str, Tensor]
    head: str
    kept: Tensor | int

    def build(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return getattr(tf, self.model)(self.config()).double().eval()


def next_token(counted: Tensor) -> Tensor:
    """Positions whose next token counts."""
    return torch.cat([counted[:, 1:], torch.zeros(len(counted), 1, dtype=torch.bool)], dim=1)


TEXT = {"input_ids": tokens() * MASK, "attention_mask": MASK.long()}
MASKED, ANSWERS = some(MASK), MASK & (torch.arange(T) >= 3)
TAGGED = some(torch.ones_like(MASK))  # padding too
TARGETS = torch.arange(7) < torch.tensor([7, 2, 5, 3, 7, 4])[:, None]  # of a decoder
TRANSLATION = {"input_ids": tokens(), "attention_mask": MASK.long(), "labels": tokens(N, 7).masked_fill(~TARGETS, -100)}


def labels(counted: Tensor) -> Tensor:
    return tokens().masked_fill(~counted, -100)


ARCHITECTURES = {
    "BERT, a label for each text": Architecture(
        "BertForSequenceClassification",
        lambda: tf.BertConfig(**LANGUAGE, num_labels=3),
        TEXT | {"labels": torch.arange(N) % 3},
        "classifier",
        N,
    ),
    "BERT, masked tokens": Architecture(
        "BertForMaskedLM", lambda: tf.BertConfig(**LANGUAGE), TEXT | {"labels": labels(MASKED)}, "cls.predictions.decoder", MASKED
    ),
    "BERT, a label for each token": Architecture(
        "BertForTokenClassification",
        lambda: tf.BertConfig(**LANGUAGE, num_labels=3),
        TEXT | {"labels": (tokens() % 3).masked_fill(~TAGGED, -100)},
        "classifier",
        MASK & TAGGED,
    ),
    "BERT, multiple choice": Architecture(
        "BertForMultipleChoice",
        lambda: tf.BertConfig(**LANGUAGE),
        {"input_ids": tokens(N, 4, T), "labels": torch.arange(N) % 4},
        "classifier",
        N * 4,
    ),
    "BERT, where the answer begins and ends": Architecture(
        "BertForQuestionAnswering",
        lambda: tf.BertConfig(**LANGUAGE),
        TEXT | {"start_positions": torch.zeros(N).long(), "end_positions": torch.ones(N).long()},
        "qa_outputs",
        MASK,
    ),
    "RoBERTa, a label for each text": Architecture(
        "RobertaForSequenceClassification", lambda: tf.RobertaConfig(**LANGUAGE, num_labels=3), TEXT, "classifier.out_proj", N
    ),
    "DistilBERT, a label for each text": Architecture(
        "DistilBertForSequenceClassification",
        lambda: tf.DistilBertConfig(vocab_size=WORDS, dim=8, n_layers=1, n_heads=2, hidden_dim=16, num_labels=3),
        TEXT,
        "classifier",
        N,
    ),
    "ELECTRA, replaced tokens": Architecture(
        "ElectraForPreTraining",
        lambda: tf.ElectraConfig(**LANGUAGE, embedding_size=8),
        TEXT,
        "discriminator_predictions.dense_prediction",
        MASK,
    ),
    "GPT-2, the prompt masked": Architecture(
        "GPT2LMHeadModel",
        lambda: tf.GPT2Config(vocab_size=WORDS, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0),
        TEXT | {"labels": labels(ANSWERS)},
        "lm_head",
        next_token(ANSWERS),
    ),
    "OPT, every token": Architecture(
        "OPTForCausalLM",
        lambda: tf.OPTConfig(
            vocab_size=WORDS, hidden_size=8, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2, word_embed_proj_dim=8
        ),
        {"input_ids": tokens(), "labels": tokens()},
        "lm_head",
        next_token(torch.ones_like(MASK)),
    ),
    "Llama, padding on the left": Architecture(
        "LlamaForCausalLM",
        lambda: tf.LlamaConfig(**LANGUAGE),
        {"input_ids": tokens(), "attention_mask": MASK.flip(1).long(), "labels": labels(MASK.flip(1))},
        "lm_head",
        next_token(MASK.flip(1)) & MASK.flip(1),
    ),
    "Qwen, a label for each text": Architecture(
        "Qwen2ForSequenceClassification",
        lambda: tf.Qwen2Config(**LANGUAGE, num_key_value_heads=2, num_labels=3),
        TEXT,
        "score",
        (torch.arange(T) == LENGTHS[:, None] - 1),
    ),
    "Mamba, every token": Architecture(
        "MambaForCausalLM",
        lambda: tf.MambaConfig(vocab_size=WORDS, hidden_size=8, num_hidden_layers=1, state_size=4),
        {"input_ids": tokens()},
        "lm_head",
        N * T,
    ),
    "T5, padded targets": Architecture(
        "T5ForConditionalGeneration",
        lambda: tf.T5Config(**SEQUENCES, d_kv=4, d_ff=16, num_layers=1, num_heads=2),
        TRANSLATION,
        "lm_head",
        TARGETS,
    ),
    "BART, padded targets": Architecture(
        "BartForConditionalGeneration",
        lambda: tf.BartConfig(**BART, encoder_ffn_dim=16, decoder_ffn_dim=16),
        TRANSLATION,
        "lm_head",
        TARGETS,
    ),
    "Whisper, padded targets": Architecture(
        "WhisperForConditionalGeneration",
        lambda: tf.WhisperConfig(**BART, num_mel_bins=8, max_source_positions=10, bos_token_id=0, eos_token_id=0),
        {"input_features": torch.randn(N, 8, 20, dtype=torch.float64), "labels": TRANSLATION["labels"]},
        "proj_out",
        TARGETS,
    ),
    "wav2vec 2, characters along a sound": Architecture(
        "Wav2Vec2ForCTC",
        lambda: tf.Wav2Vec2Config(**SPEECH),
        {"input_values": torch.randn(N, 120, dtype=torch.float64)},
        "lm_head",
        N * 11,
    ),
    "wav2vec 2, a label for each sound": Architecture(
        "Wav2Vec2ForSequenceClassification",
        lambda: tf.Wav2Vec2Config(**SPEECH, num_labels=3),
        {"input_values": torch.randn(N, 120, dtype=torch.float64), "labels": torch.arange(N) % 3},
        "classifier",
        N,
    ),
    "ViT": Architecture(
        "ViTForImageClassification",
        lambda: tf.ViTConfig(**ENCODER, image_size=16, patch_size=8, num_labels=3),
        {"pixel_values": IMAGES, "labels": torch.arange(N) % 3},
        "classifier",
        N,
    ),
    "Swin": Architecture(
        "SwinForImageClassification",
        lambda: tf.SwinConfig(
            image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=3
        ),
        {"pixel_values": IMAGES},
        "classifier",
        N,
    ),
    "ConvNeXt": Architecture(
        "ConvNextForImageClassification",
        lambda: tf.ConvNextConfig(hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, num_labels=3),
        {"pixel_values": IMAGES},
        "classifier",
        N,
    ),
    "SegFormer, labels of a higher resolution": Architecture(
        "SegformerForSemanticSegmentation",
        lambda: tf.SegformerConfig(
            hidden_sizes=[8, 8],
            depths=[1, 1],
            num_encoder_blocks=2,
            num_attention_heads=[1, 1],
            sr_ratios=[2, 1],
            strides=[4, 2],
            patch_sizes=[7, 3],
            mlp_ratios=[2, 2],
            decoder_hidden_size=8,
            num_labels=3,
        ),
        {"pixel_values": IMAGES, "labels": torch.zeros(N, 16, 16, dtype=torch.long)},
        "decode_head.classifier",
        N * 4 * 4,
    ),
    "Audio spectrogram transformer": Architecture(
        "ASTForAudioClassification",
        lambda: tf.ASTConfig(
            **ENCODER, max_length=24, num_mel_bins=16, patch_size=8, num_labels=3, frequency_stride=8, time_stride=8
        ),
        {"input_values": torch.randn(N, 24, 16, dtype=torch.float64)},
        "classifier.dense",
        N,
    ),
}


def rows_by_hook(model: torch.nn.Module, entry: Architecture) -> tuple[Tensor, Tensor]:
    """Features and outputs of the head, row by row, of those that count."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = model.get_submodule(entry.head).register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    with torch.no_grad():
        model(**entry.batch)
    handle.remove()
    ((features, outputs),) = seen
    if isinstance(model.get_submodule(entry.head), torch.nn.Conv2d):
        features, outputs = features.movedim(1, -1), outputs.movedim(1, -1)
    kept = torch.ones(outputs.shape[:-1], dtype=torch.bool) if isinstance(entry.kept, int) else entry.kept
    assert kept.shape == outputs.shape[:-1]
    return features[kept], outputs[kept]


@pytest.mark.parametrize("entry", [pytest.param(entry, id=name) for name, entry in ARCHITECTURES.items()])
def test_head_and_rows(entry):
    model = entry.build()
    result = lazyrich.measure(model, [entry.batch])
    assert result.head == entry.head
    assert result.num_samples == (entry.kept if isinstance(entry.kept, int) else int(entry.kept.sum()))
    features, outputs = rows_by_hook(model, entry)  # after the measurement, which must have left the model as it was
    assert result.low_rank == pytest.approx(reference.d_lr(features, outputs), abs=1e-6)


def test_two_heads_are_asked_for():
    """A detector returns classes and boxes."""
    torch.manual_seed(0)
    model = tf.YolosForObjectDetection(tf.YolosConfig(**ENCODER, image_size=[16, 16], patch_size=8, num_detection_tokens=5))
    with pytest.raises(HeadError, match="more than one head.*bbox_predictor.layers.2.*class_labels_classifier.layers.2"):
        lazyrich.measure(model.double(), [{"pixel_values": IMAGES}])
    result = lazyrich.measure(model, [{"pixel_values": IMAGES}], head="class_labels_classifier.layers.2")
    assert result.num_samples == N * 5


def test_prompt_tuning():
    """The virtual tokens come before the text, so that neither mask nor labels fit the head's positions."""
    peft = pytest.importorskip("peft")
    entry = ARCHITECTURES["GPT-2, the prompt masked"]
    model = peft.get_peft_model(entry.build(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).double()
    with pytest.raises(DataError, match="rows="):
        lazyrich.measure(model, [entry.batch])
    virtual = torch.zeros(N, 4, dtype=torch.bool)
    result = lazyrich.measure(model, [entry.batch], rows=lambda _: torch.cat([virtual, next_token(ANSWERS)], dim=1))
    assert result.num_samples == int(ANSWERS.sum())
