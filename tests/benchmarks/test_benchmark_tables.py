import json

import pytest

from benchmarks.tables import fill


def _document(results, **settings):
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "machine": {"cpu": "a cpu", "cores": 2, "memory_gib": 4.0},
        "versions": {"jax": "1.2.3"},
        "settings": {"device": "cpu", "repeats": 3, **settings},
        "results": results,
    }


def _timing(contender, seconds, queries=1):
    return {
        "model": "mlp",
        "queries": queries,
        "contender": contender,
        "seconds_per_pair": {"median": seconds, "min": 0.9 * seconds, "max": 1.1 * seconds},
        "compile_seconds": 0.5,
        "peak_bytes": 3 << 20,
        "device_peak_bytes": None,
        "relative_error": 1e-6,
        "notes": "eager, 2 thread(s)",
    }


def _filled(tmp_path, name, document):
    (tmp_path / f"{name}.json").write_text(json.dumps(document))
    page = f"before\n<!-- table:{name} -->\nold\n<!-- /table -->\nafter\n"
    return fill(page, tmp_path)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1e-6, "2.00× the tuned one (faster)"), (4e-6, "0.50× the tuned one (slower)")],
)
def test_speed_table_says_who_is_faster(tmp_path, seconds, said):
    rows = [_timing("torch_released", 4e-6), _timing("torch_tuned", 2e-6)]
    page = _filled(tmp_path, "forward_inf", _document([*rows, _timing("jaxinf", seconds)]))
    assert said in page
    assert f"| mlp | 1 | jaxinf | {seconds * 1e6:g} (" in page
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")


def test_speed_table_claims_nothing_when_ranges_overlap(tmp_path):
    names = {"torch_released": 4e-6, "torch_tuned": 1.05e-6, "jaxinf": 1e-6}
    rows = [_timing(name, seconds) for name, seconds in names.items()]
    page = _filled(tmp_path, "forward_inf", _document(rows))
    assert "(ranges overlap)" in page
    assert "(faster)" not in page


def test_leakage_text_names_what_loses_to_pixels(tmp_path):
    def method(name, top1, low, high, baseline=False):
        interval = {"estimate": top1, "low": top1 - 0.1, "high": top1 + 0.1}
        difference = {"estimate": top1 - 1.0, "low": low, "high": high}
        return {
            "method": name,
            "baseline": baseline,
            "top1": interval,
            "top5": interval,
            "top1_minus_pixels": difference,
        }

    methods = [
        method("weak", 0.2, -0.9, -0.7),
        method("level", 1.0, -0.1, 0.1),
        method("pixels", 1.0, 0.0, 0.0, baseline=True),
    ]
    fits = [{"train_accuracy": 1.0, "test_accuracy": 0.9, "train_loss": 1e-3}]
    document = _document({"methods": methods, "fit": fits}, model="cnn", copies=3, seeds=2)
    page = _filled(tmp_path, "leakage", document)
    assert (
        "1 of 2 methods are below the nearest neighbour in pixels at top-1: weak (-0.80)." in page
    )
    assert "1 of 2 methods are not told apart from" in page
    assert "| *pixels* (baseline) | 1.000 (0.900–1.000) |" in page


def test_memory_table_states_the_growth(tmp_path):
    rows = [
        {"rows": n, "top_k": k, "peak_bytes": peak << 20, "kept_bytes": 1 << 20, "seconds": 1.0}
        for n, k, peak in [(10, 5, 100), (1000, 5, 101), (1000, None, 160)]
    ]
    page = _filled(tmp_path, "memory", _document(rows, queries=16, batch_size=8))
    assert "100 times the examples take +1 MiB with top 5, +60 MiB with all scores." in page


def test_regions_without_results_say_how_to_make_them(tmp_path):
    page = "<!-- table:memory -->\n<!-- /table -->\n<!-- table:other -->\nkept\n<!-- /table -->"
    filled = fill(page, tmp_path)
    assert "python -m benchmarks.memory" in filled
    assert "<!-- table:other -->\nkept\n<!-- /table -->" in filled
    assert fill(filled, tmp_path) == filled
