"""Training with callbacks. SPDX-License-Identifier: Apache-2.0"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
from pathlib import Path

import pytest
from conftest import FILMS, MODEL, ROOT

import radz

LABELS = ["Mass", "Edema", "Nodule", "No Finding"]


@pytest.fixture
def options(tmp_path: Path) -> radz.TrainOptions:
    rows = [f"{film},{label},p{i}" for i, (film, label) in enumerate(zip(FILMS, LABELS, strict=True))]
    (tmp_path / "films.csv").write_text("path,labels,patient\n" + "\n".join(rows) + "\n")
    return radz.TrainOptions(
        model_dir=MODEL,
        manifest=tmp_path / "films.csv",
        out_dir=tmp_path / "out",
        diseases=ROOT / "models" / "diseases.txt",
        epochs=3,
        batch_size=2,
        lora_rank=2,
        lr=1e-4,
        lambda_=0.25,
        validate_every=0,
        seed=7,
    )


def test_a_run_and_its_model(options: radz.TrainOptions) -> None:
    seen: list[radz.TrainProgress] = []
    with radz.Trainer(options, on_progress=seen.append) as trainer:
        plan = trainer.plan()
        assert plan.n_train + plan.n_val + plan.n_left_out == len(FILMS)
        assert plan.n_trained < plan.n_parameters
        assert math.isnan(plan.seconds_per_step)
        trainer.run()
    assert [p.step for p in seen] == list(range(1, plan.n_steps + 1))
    assert all(math.isfinite(p.loss) for p in seen)
    first = seen[0]
    assert math.isclose(first.loss, 0.25 * first.loss_ca + 0.75 * first.loss_cg, rel_tol=1e-5)
    with radz.Model(options.out_dir) as model, radz.Session(model) as session:
        assert len(session.classify(FILMS[0])) == 15


def test_the_same_bits_whoever_calls(options: radz.TrainOptions, tmp_path: Path) -> None:
    """With a callback or without, from the main thread or another."""
    radz.Trainer(options, on_progress=lambda _: None).run()
    other = dataclasses.replace(options, out_dir=tmp_path / "other")
    thread = threading.Thread(target=lambda: radz.Trainer(other).run())
    thread.start()
    thread.join()
    files = sorted(f.name for f in Path(options.out_dir).glob("*.safetensors"))
    assert files
    for name in files:
        assert (Path(options.out_dir) / name).read_bytes() == (Path(other.out_dir) / name).read_bytes()


def test_cancelling_and_going_on(options: radz.TrainOptions) -> None:
    seen: list[radz.TrainProgress] = []

    def after_two(progress: radz.TrainProgress) -> bool:
        seen.append(progress)
        return progress.step == 2

    with radz.Trainer(options, on_progress=after_two) as trainer, pytest.raises(radz.CancelledError):
        trainer.run()
    assert seen[-1].step == 2
    options.resume = True
    with radz.Trainer(options, on_progress=seen.append) as trainer:
        trainer.run()
    assert [p.step for p in seen] == list(range(1, seen[-1].n_steps + 1))


def test_ctrl_c_saves_a_checkpoint(options: radz.TrainOptions) -> None:
    def interrupted(progress: radz.TrainProgress) -> None:
        if progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with radz.Trainer(options, on_progress=interrupted) as trainer, pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert (Path(options.out_dir) / "checkpoint").is_dir()


def test_what_the_callback_raises_is_raised(options: radz.TrainOptions) -> None:
    def raises(_progress: radz.TrainProgress) -> None:
        raise LookupError("mine")

    with radz.Trainer(options, on_progress=raises) as trainer, pytest.raises(LookupError, match="mine"):
        trainer.run()


def test_presets_and_wrong_options(options: radz.TrainOptions) -> None:
    options.batch_size = None
    with radz.Trainer(options, preset="refcode") as trainer:
        assert trainer._options.accumulate == 2
        assert trainer._options.tau == 0.05
        assert trainer._options.lora_rank == 2
    with pytest.raises(radz.ArgumentError, match="paper or refcode"):
        radz.Trainer(options, preset="other")  # type: ignore[arg-type]
    for wrong, kind, words in (
        ({"batch_size": -1}, radz.ArgumentError, "batch"),
        ({"seed": -1}, radz.ArgumentError, "seed is -1"),
        ({"objective": "win"}, radz.ArgumentError, "win"),
        ({"manifest": "/nowhere.csv"}, radz.InputOutputError, "nowhere"),
        ({"epochs": "many"}, ValueError, "many"),
    ):
        with pytest.raises(kind, match=words):
            radz.Trainer(dataclasses.replace(options, **wrong))
