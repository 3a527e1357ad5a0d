"""`jaxinf language` on a tiny checkpoint: scores, report, resume, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxinf.applications.language import trace_facts
from jaxinf.cli.texts import ANSWERS, PROMPTS, TEXTS, read_columns
from jaxinf.errors import InputError
from jaxinf.models.language import load_causal_lm, load_tokenizer, train_bpe

TEXTS_GIVEN = ["Rome lies in Italy.", "Bonn is <b>near</b> Cologne.", "Paris lies in France."]
QUERIES = [{"prompt": "Rome lies in", "answer": "Italy"}, {"prompt": "Paris lies", "answer": "in"}]


@pytest.fixture
def files(tmp_path):
    """A GPT-2 of random weights with a tokenizer of its own, texts and questions."""
    from safetensors.numpy import save_file

    from jaxinf.models.language import CausalLM, LanguageConfig
    from jaxinf.models.language.names import tensors

    tokenizer = train_bpe(TEXTS_GIVEN, 270)
    config = LanguageConfig(tokenizer.vocab_size, 40, 8, 1, 2)
    rng = np.random.default_rng(0)
    arrays = {
        t.name: rng.normal(0, 0.3, t.shape).astype(np.float32) for t in tensors("gpt2", config)
    }
    assert CausalLM(config).config == config
    checkpoint = tmp_path / "checkpoint"
    tokenizer.save(checkpoint)
    save_file(arrays, checkpoint / "model.safetensors")
    settings = {
        "model_type": "gpt2", "vocab_size": config.vocab_size, "n_positions": 40, "n_embd": 8,
        "n_layer": 1, "n_head": 2, "eos_token_id": tokenizer.end,
    }  # fmt: skip
    (checkpoint / "config.json").write_text(json.dumps(settings))
    texts, queries = tmp_path / "texts.txt", tmp_path / "queries.jsonl"
    texts.write_text("\n".join(TEXTS_GIVEN) + "\n\n")
    queries.write_text("\n".join(map(json.dumps, QUERIES)))
    return checkpoint, texts, queries


@pytest.mark.parametrize(
    "method", ["hidden-states", pytest.param("forward-inf-jvp", marks=pytest.mark.slow)]
)
def test_scores_are_the_librarys_and_bm25_comes_first(call, files, tmp_path, method):
    out, store = tmp_path / "out", tmp_path / "store"
    asked = ("--method", method, "--out", out, "--store", store, "--no-progress", "--top", 9)
    result = call("language", *files, *asked)
    assert result.exit_code == 0, result.output
    assert "answers are what the model itself says" in result.stdout
    table = pq.read_table(out / "scores.parquet")
    names = [name.split("/")[0] for name in table.column_names]
    assert list(dict.fromkeys(names)) == ["train_index", "bm25", method, "combined"]
    model = load_causal_lm(files[0])
    want = trace_facts(
        model.module, model.params, load_tokenizer(files[0]), TEXTS_GIVEN,
        [q["prompt"] for q in QUERIES], [q["answer"] for q in QUERIES],
        methods=[method], progress=False,
    )  # fmt: skip
    for name in ("bm25", method):
        np.testing.assert_allclose(table[f"{name}/query_1"], want.scores[name][1], rtol=1e-4)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert ('class="for"' in page) == (method != "hidden-states")
    assert "&lt;b&gt;" in page
    assert "Words alone, and the model" in page
    assert "data:image/png;base64," in page
    assert page.index("BM25, words alone") < page.index(f"{method}, 1")
    again = call("language", *files, *asked, "--no-report")
    assert again.exit_code == 0, again.output
    files[1].write_text("Another text.")
    refused = call("language", *files, *asked, "--no-report")
    assert "belongs to another run" in refused.stderr


def test_the_tokenizer_and_the_shades_are_those_of_the_run(call, files, tmp_path, monkeypatch):
    settings = json.loads((files[0] / "config.json").read_text()) | {"bos_token_id": 65}
    (files[0] / "config.json").write_text(json.dumps(settings))
    heard = {}

    def trace(module, params, tokenizer, *texts, **options):
        options["methods"] = ()  # what a method finds does not matter here
        found = trace_facts(module, params, tokenizer, *texts, **options)
        heard.update(tokenizer=tokenizer, found=found, key=options["key"])
        return replace(found, scores=found.scores | {"by-token": found.scores["bm25"]})

    def shares(module, params, method, queries, train, rows, *, key):
        heard.update(method=method, asked=queries, shade_key=key)
        return np.ones((*rows.shape, train["tokens"].shape[1]))

    monkeypatch.setattr("jaxinf.applications.language.trace_facts", trace)
    monkeypatch.setattr("jaxinf.cli.language_findings.proponent_tokens", shares)
    result = call("language", *files, "--out", tmp_path / "o", "--no-progress", "--seed", 5)
    assert result.exit_code == 0, result.output
    assert (heard["tokenizer"].begin, heard["tokenizer"].end) == (65, 0)
    assert (heard["found"].train["tokens"][:, 0] == 65).all()
    assert heard["method"] == "by-token"
    assert heard["shade_key"] == heard["key"] == jax.random.key(5)
    np.testing.assert_array_equal(heard["asked"]["mask"], heard["found"].whole["mask"])
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "the question and its answer likelier" in page


def test_what_does_not_fit_is_told_in_one_line(refused, files, tmp_path):
    checkpoint, texts, queries = files
    run = lambda *given: refused("language", *given, "--method", "none", "--out", tmp_path / "o")
    long = tmp_path / "long.txt"
    long.write_text("word " * 60)
    assert "the model's context is 40" in run(checkpoint, long, queries)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    assert "has no texts" in run(checkpoint, empty, queries)
    assert "none of prompt, answer is known for the texts" in run(checkpoint, queries, queries)
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    train_bpe(["".join(map(chr, range(200, 900)))] * 3, 400).save(other)
    assert "do not belong together" in run(other, texts, queries)
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(settings | {"eos_token_id": 50256}))
    assert "end is 50256, which is no token of this tokenizer" in run(other, texts, queries)
    (other / "tokenizer.json").unlink()
    assert "no tokenizer.json there" in run(other, texts, queries)
    settings = json.loads((other / "config.json").read_text()) | {"model_type": "mamba"}
    (other / "config.json").write_text(json.dumps(settings))
    assert "model_type 'mamba' is unknown" in run(other, texts, queries)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_tables_of_every_kind_are_read(tmp_path, kind):
    path = tmp_path / f"q.{kind}"
    table = pa.table({name: [row[name] for row in QUERIES] for name in ("prompt", "answer")})
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, QUERIES)))
    elif kind == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    asked = [(None, PROMPTS, "the prompts", "--p"), ("answer", ANSWERS, "the answers", "--a")]
    found = read_columns(path, asked)
    assert found == [["Rome lies in", "Paris lies"], ["Italy", "in"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "{", "line 1 is no JSON"),
        ("a.jsonl", "[1]", "line 1 is no JSON object"),
        ("a.jsonl", '{"text": 3}', "row 0 of 'text' is int, not text"),
        ("a.jsonl", '{"body": "x"}', "none of body is known for the texts: name it by --column"),
        ("a.doc", "x", "files of kind '.doc' are not read"),
        ("a.parquet", "x", "cannot be read"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, message):
    path = Path(tmp_path, name)
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_columns(path, [(None, TEXTS, "the texts", "--column")])
