"""``hf:FOLDER`` with files of data: the numbers of the same model on batches that are made by hand."""

import copy
import csv
import json
import sys

import pytest
import torch

import lazyrich
from lazyrich.cli import main

transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.filterwarnings("ignore::lazyrich.RankWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
WORDS = [f"w{k}" for k in range(30)]
CLASSES = ["bad", "good", "odd"]


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    pad, unknown = "[PAD]", "[UNK]"
    made = Tokenizer(models.WordLevel({word: k for k, word in enumerate([pad, unknown, *WORDS])}, unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, unk_token=unknown)


def texts(n=40):
    g = torch.Generator().manual_seed(0)
    numbers = [torch.randint(30, (3 + k % 5,), generator=g).tolist() for k in range(n)]
    return [" ".join(WORDS[k] for k in line) for line in numbers], [k % 3 for k in range(n)]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The folder of a small BERT, and the model."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, id2label=dict(enumerate(CLASSES)), label2id={name: k for k, name in enumerate(CLASSES)},
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder, model


def write(path, lines, labels, columns=("text", "label")):
    records = [dict(zip(columns, row, strict=True)) for row in zip(lines, labels, strict=True)]
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(records)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(records), encoding="utf-8")
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(sys.modules["pyarrow"].Table.from_pylist(records), path)
    return path


def by_hand(model, lines, labels):
    made = tokenizer()
    batches = []
    for k in range(0, len(lines), 32):
        batch = dict(made(lines[k : k + 32], padding=True, truncation=True, max_length=16, return_tensors="pt"))
        batches.append(batch | {"labels": torch.tensor(labels[k : k + 32])})
    return lazyrich.measure(model, batches)


def measured(capsys, *arguments):
    assert main(["measure", *map(str, arguments), "--no-progress"]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_a_classifier_on_a_table(classifier, tmp_path, capsys, kind):
    folder, model = classifier
    lines, labels = texts()
    named = [CLASSES[k].upper() if kind == ".jsonl" else str(k) if kind in (".csv", ".tsv") else k for k in labels]
    file = write(tmp_path / f"data{kind}", lines, named)
    measured(capsys, f"hf:{folder}", "--data", file, "--null", "0", "--out", tmp_path / "out")
    found, expected = lazyrich.load(tmp_path / "out" / "richness.json"), by_hand(model, lines, labels)
    assert found.low_rank == pytest.approx(expected.low_rank, abs=1e-6)
    assert found.neural_collapse.nc1 == pytest.approx(expected.neural_collapse.nc1, rel=1e-4)
    assert found.num_samples == 40


def test_it_draws_networks_of_its_configuration(classifier, tmp_path, capsys):
    folder, _ = classifier
    file = write(tmp_path / "data.csv", *texts())
    assert "over redraws" in measured(capsys, f"hf:{folder}", "--data", file)


def test_named_columns(classifier, tmp_path, capsys):
    folder, model = classifier
    lines, labels = texts()
    file = write(tmp_path / "data.csv", lines, labels, ("words", "stars"))
    options = ["--text", "words", "--label", "stars", "--null", "0", "--out", tmp_path / "out"]
    measured(capsys, f"hf:{folder}", "--data", file, *options)
    nc1 = lazyrich.load(tmp_path / "out" / "richness.json").neural_collapse.nc1
    assert nc1 == pytest.approx(by_hand(model, lines, labels).neural_collapse.nc1, rel=1e-4)


def test_a_language_model_counts_the_tokens_that_it_predicts(tmp_path, capsys):
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt")
    tokenizer().save_pretrained(tmp_path / "gpt")
    lines, _ = texts()
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    measured(capsys, f"hf:{tmp_path / 'gpt'}", "--data", tmp_path / "data.jsonl", "--null", "0", "--out", tmp_path / "out")
    found = lazyrich.load(tmp_path / "out" / "richness.json")
    assert found.num_samples == sum(len(line.split()) - 1 for line in lines)  # each token but the first of a text


def test_an_image_folder(tmp_path, capsys):
    from PIL import Image

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8,
        id2label=dict(enumerate(CLASSES)), label2id={name: k for k, name in enumerate(CLASSES)},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "vit")
    try:
        processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    except ImportError as error:
        pytest.skip(str(error).strip().splitlines()[0])
    processor.save_pretrained(tmp_path / "vit")
    g = torch.Generator().manual_seed(0)
    pictures, labels = [], []
    for k in range(30):
        pixels = torch.randint(256, (20, 20, 3), generator=g, dtype=torch.uint8).numpy()
        folder = tmp_path / "images" / CLASSES[k % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
        pictures.append(Image.fromarray(pixels))
        labels.append(k % 3)
    measured(capsys, f"hf:{tmp_path / 'vit'}", "--data", tmp_path / "images", "--null", "0", "--out", tmp_path / "out")
    found = lazyrich.load(tmp_path / "out" / "richness.json")
    batch = dict(processor(images=pictures, return_tensors="pt")) | {"labels": torch.tensor(labels)}
    expected = lazyrich.measure(model, [batch])
    assert found.low_rank == pytest.approx(expected.low_rank, abs=1e-6)
    assert found.neural_collapse.nc1 == pytest.approx(expected.neural_collapse.nc1, rel=1e-4)


def test_a_trace_of_folders(classifier, tmp_path, capsys):
    model = copy.deepcopy(classifier[1])
    file = write(tmp_path / "data.csv", *texts())
    for step in (0, 5, 10):
        with torch.no_grad():
            model.classifier.weight.mul_(1.5)
        model.save_pretrained(tmp_path / "runs" / f"checkpoint-{step}")
        tokenizer().save_pretrained(tmp_path / "runs" / f"checkpoint-{step}")
    arguments = ["trace", f"hf:{tmp_path / 'runs'}/checkpoint-*", "--data", str(file), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--no-progress"]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines() if line[:1].isdigit()] == ["0", "5", "10"]


class TestErrors:
    @pytest.mark.parametrize(
        ("model", "data", "said"),
        [
            ("hf:nowhere", "data.csv", "MODEL: there is no folder 'nowhere'"),
            ("hf:empty", "data.csv", "MODEL: empty has no config.json"),
            ("hf:{bert}", "missing.csv", "--data: there is no file 'missing.csv'"),
            ("hf:{bert}", "data.csv --text words", "--text: data.csv has no column 'words'. It has: text, label"),
            ("hf:{bert}", "data.csv --label lbael", "--label: data.csv has no column 'lbael'; did you mean label?"),
            ("hf:{bert}", "odd.csv", "the label 'great' in column 'label' is none of the model's: bad, good, odd"),
            ("hf:{bert}", "two.csv", "which column of two.csv holds the texts? Pass --text with one of first, second"),
            ("hf:{bert}", "broken.json", "--data: broken.json cannot be read"),
            ("hf:{bert}", "empty", "--data: empty has no images"),
            ("a:b", "data.csv", "--data data.csv: files are read for models of Transformers only, hf:FOLDER"),
        ],
    )
    def test_one_sentence(self, classifier, tmp_path, monkeypatch, capsys, model, data, said):
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "data.csv", *texts(6))
        write(tmp_path / "odd.csv", texts(6)[0], ["great"] * 6)
        write(tmp_path / "two.csv", *(texts(6)[0],) * 2, ("first", "second"))
        (tmp_path / "broken.json").write_text("{", encoding="utf-8")
        (tmp_path / "empty").mkdir()
        arguments = ["measure", model.format(bert=classifier[0]), "--data", *data.split(), "--null", "0", "--no-progress"]
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert said in error
        assert len(error.strip().splitlines()) == 1
