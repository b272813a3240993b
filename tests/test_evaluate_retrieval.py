"""R-precision: candidates, ranks, and its rows of a run whose encoders are its own."""

import numpy as np
import pytest

from gan_jax import folders, painter, parallel, run_data, runs
from gan_jax.errors import UserError
from gan_jax.evaluate import evaluate, retrieval
from tests import settings


def test_candidates_are_different_captions_and_the_own_one_first():
    own = np.array([0, 3, 3, 119])
    choices = retrieval.candidates(own, 120, seed=1)
    assert choices.shape == (4, 100) and (choices[:, 0] == own).all()
    for row in choices:
        assert len(set(row.tolist())) == 100 and row.min() >= 0 and row.max() < 120
    assert (choices[1] != choices[2]).any()  # each image has its own
    np.testing.assert_array_equal(choices, retrieval.candidates(own, 120, seed=1))
    few = retrieval.candidates(own[:2], 4, seed=1)  # all the others, where there are not so many
    assert [sorted(row.tolist()) for row in few] == [[0, 1, 2, 3]] * 2 and few[1, 0] == 3


def test_precision_counts_images_whose_own_caption_is_the_most_like_them():
    """Lengths do not matter; a tie is no hit."""
    captions = np.array([[1.0, 0], [0, 5], [-1, 0]])
    images = np.array([[3.0, 1], [1, 2], [1, 0.5], [0, 0]])
    choices = np.array([[0, 1, 2], [1, 0, 2], [1, 0, 2], [2, 0, 1]])
    assert retrieval.precision(images, captions, choices) == 0.5


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_captions.py'}:smoke", [("evaluation.samples", "16")])
    settings.fresh_folder(config, folder)
    return folder


def test_rows_of_a_run(workdir, monkeypatch):
    """Against vectors that are made here, one sample at a time, and ranked by sorting."""
    monkeypatch.setattr(retrieval, "AT_ONCE", 6)  # the last part is shorter
    rows = {row["metric"]: row for row in evaluate(str(workdir), metrics="r_precision", append=False)}
    assert set(rows) == {"r_precision", "r_precision/real", "r_precision/shuffled"}
    assert all(row["encoders"] == "the run's own" and row["better"] == "higher" for row in rows.values())
    config, spec, _ = folders.read_folder(workdir)
    run = runs.build(config, spec)
    ema = folders.restore(run, workdir, parallel.make_mesh()).state.ema
    examples = run_data.open_data(config, config.evaluation.split).examples(np.arange(16))
    distinct, own = np.unique(examples["caption"][:, 0], axis=0, return_inverse=True)
    choices = retrieval.candidates(own.reshape(-1), len(distinct), config.seed)
    keys = painter.keys_from(config.seed, "evaluation", np.arange(16))
    drawn = run.game.sample(run.nets, ema, keys, {"caption": examples["caption"]})["image"]
    for name, images in (("r_precision", drawn), ("r_precision/real", examples["image"])):
        vectors, texts = (np.asarray(x) for x in run.game.alike(run.nets, ema, images, examples))
        of_caption = {place: texts[i] for i, place in enumerate(own.reshape(-1))}
        hits = 0
        for vector, row in zip(vectors, choices, strict=True):
            alike = [vector @ of_caption[c] / np.linalg.norm(vector) / np.linalg.norm(of_caption[c]) for c in row]
            hits += int(np.argsort(alike)[-1] == 0)
        assert rows[name]["value"] == hits / 16 and rows[name]["candidates"] == len(distinct)


def test_a_game_without_encoders_is_refused():
    run = settings.build(settings.digits(evaluation__metrics="('r_precision',)"))
    with pytest.raises(UserError, match="metrics=r_precision: the game 'unconditional' has no encoders of captions"):
        from gan_jax.evaluate import measurer

        measurer(run)
