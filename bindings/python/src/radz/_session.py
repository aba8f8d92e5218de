"""Sessions: everything that runs the network.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from . import _abi
from ._bank import Bank
from ._handles import Call, CancelFlag, Handle, pointer, using
from ._heatmap import HeatMap, HeatMapMethod, HeatMapScore
from ._image import Film, Image, as_image
from ._lowlevel import lib, new_options, read_error
from ._model import Model
from ._result import Result, read_result, take_results
from ._values import FloatArray, Matrix, NewArray, Path, choice, fill, from_struct, string_array, take_text, to_bytes
from .errors import ArgumentError, RadzError

T = TypeVar("T")

#: Which rows of the hidden layer are averaged: the special tokens, all others, the last row, every row.
Feature: TypeAlias = Literal["global", "local", "last", "all"]
#: The other methods of the paper's Table 1.
Method: TypeAlias = Literal["likelihood", "hidden", "options", "cot"]


@dataclass(frozen=True)
class Token:
    """What `Session.generate` tells after every token.

    text: what is new, in whole characters. token: the one just chosen. n_tokens: chosen so far. n_prompt: rows of the
    prompt, the film's included. finished: None: it goes on; else "end", "stop", or "length".
    """

    text: str
    token: int
    n_tokens: int
    n_prompt: int
    finished: str | None


class Session(Handle):
    """Scratch memory for one caller of one model: one thread at a time, so make one session per thread.

    The GIL is free while the library works. Ctrl-C, and whatever else a signal handler raises in the main thread, ends
    the running call between two layers of the network and is raised from it; so is what a callback raises. In the main
    thread the call itself runs in a helper thread, while callbacks stay in the main one.
    """

    _kind = _abi.radz_session
    _exclusive = True

    def __init__(self, model: Model, *, strict: bool = False, keep_film: bool = False) -> None:
        """strict: a film whose own DICOM file speaks against it (lateral view, FOR PROCESSING, ...) raises
        MismatchError when it is classified, in place of a warning. keep_film: another prompt on the film just seen
        costs its own words alone, for more memory; the same bits.
        """
        super().__init__()
        self.model = model
        self._cancel_flag = CancelFlag()
        options = fill(new_options(_abi.radz_session_options), strict=strict, keep_film=keep_film)
        options.cancel_fn = ctypes.cast(self._cancel_flag.function, _abi.cancel_fn)
        options.user = self._cancel_flag.user
        with using(model):
            lib.radz_session_open(pointer(model), options, self._pointer, _abi.radz_error())

    def cancel(self) -> None:
        """Asks the running call to stop, from any thread: it raises CancelledError. Nothing where none runs."""
        self._cancel_flag.set()

    @property
    def bytes(self) -> int:
        """Scratch memory held now, in bytes: it grows with the largest call and stays for the next."""
        with using(self):
            return int(lib.radz_session_bytes(self._pointer))

    def _call(self) -> Call:
        return Call(self._cancel_flag)

    def _run(self, work: Callable[[Any, Any], T], *also: Handle | None, call: Call | None = None) -> T:
        """The result of work(session pointer, error), with the handles it uses kept open. It may be cancelled."""

        def whole() -> T:
            with using(self.model, *also):
                return work(self._pointer, _abi.radz_error())

        # Taken here, so that a session busy elsewhere is said before its flag is touched; given back when the call has
        # ended, whatever becomes of this thread.
        self._acquire()
        return (call or self._call()).run(whole, self._drop)

    # ---- Scores ----

    def classify(self, film: Film, bank: Bank | None = None) -> Result:
        """The scores of one film (see `Image` for what that may be) against a bank, best first.

        bank None: with the model's linear head where it has one, else against the model's own bank. Probabilities are
        not calibrated.
        """
        with as_image(film, self.model.runtime) as image:
            return self._run(
                lambda s, e: read_result(
                    lambda out: lib.radz_classify(s, pointer(bank), image._pointer, out, e),
                ),
                bank,
                image,
            )

    def classify_batch(self, films: Iterable[Film], bank: Bank | None = None) -> list[Result]:
        """The scores of several films in one pass: all, or an exception. The same bits as one by one."""
        with ExitStack() as stack:
            images, array = self._images(stack, films)
            results = (ctypes.POINTER(_abi.radz_result) * max(len(images), 1))()

            def work(s: Any, e: Any) -> list[Result]:
                lib.radz_classify_batch(s, pointer(bank), array, len(images), results, e)
                return take_results([results[i] for i in range(len(images))])

            return self._run(work, bank, *images)

    def classify_files(
        self,
        paths: Iterable[Path],
        bank: Bank | None = None,
        *,
        on_film: Callable[[int, Result | RadzError], object] | None = None,
    ) -> list[Result | RadzError]:
        """The scores of films by path, for whole folders: while the network works on some, the next ones are read.

        A film that fails stops nothing: in its place is the exception. on_film: told of each film in the order of the
        paths; to answer with something true cancels (CancelledError). The bits are those of `classify`.
        """
        names = string_array("paths", paths)
        done: list[Result | RadzError] = []
        call = self._call()

        def told(i: int, result: Any, error: Any, _user: object) -> int:
            try:
                one = take_results([result])[0] if result else read_error(error.contents)
            except BaseException as problem:
                return call.raises(problem)
            done.append(one)
            return call.callback(lambda: on_film(i, one)) if on_film is not None else 0

        told_fn = _abi.film_fn(told)
        self._run(
            lambda s, e: lib.radz_classify_files(s, pointer(bank), names, len(names), told_fn, None, e), bank, call=call
        )
        return done

    def _images(self, stack: ExitStack, films: Iterable[Film]) -> tuple[list[Image], Any]:
        if isinstance(films, (str, bytes, Image)):
            raise TypeError("films must be a sequence of films, not one film")
        images = [stack.enter_context(as_image(film, self.model.runtime)) for film in films]
        kind: Any = ctypes.POINTER(_abi.radz_image) * max(len(images), 1)
        return images, kind(*(image._pointer for image in images))

    # ---- Vectors ----

    def embed_images(
        self, films: Iterable[Film], *, feature: Feature = "global", layer: int | None = None, raw: bool = False
    ) -> FloatArray:
        """Unit vectors of n films: float32 (n, K), or with raw (n, width of the decoder).

        feature: which rows are averaged. layer: index into hidden_states as transformers counts; 0 (default) is the
        model's own. raw: the mean row as it is, scaled to length 1, without gamma. A vector has the same bits alone
        or in a batch, and with any number of threads.
        """
        with ExitStack() as stack:
            images, array = self._images(stack, films)
            return self._embed(lib.radz_embed_images, array, len(images), feature, layer, raw, *images)

    def embed_texts(
        self, texts: Iterable[str], *, feature: Feature = "global", layer: int | None = None, raw: bool = False
    ) -> FloatArray:
        """Unit vectors of n texts, such as "This is a chest X-ray showing ...": float32 (n, K), as `embed_images`."""
        array = string_array("texts", texts)
        return self._embed(lib.radz_embed_texts, array, len(array), feature, layer, raw)

    def _embed(
        self, function: Any, items: Any, n: int, feature: str, layer: int | None, raw: bool, *images: Image
    ) -> FloatArray:
        options = new_options(_abi.radz_embed_options)
        which = choice("feature", _abi.radz_feature, "RADZ_FEATURE_", feature)
        fill(options, feature=which, layer=layer, raw=raw)

        def work(s: Any, e: Any) -> Any:
            dim = lib.radz_embed_dim(self.model._pointer, options)
            out = NewArray(ctypes.c_float, n, dim)
            function(s, items, n, options, out.pointer, e)
            return out.array

        made: FloatArray = self._run(work, *images)
        return made

    # ---- Heat maps ----

    def heatmap(
        self,
        film: Film,
        label: str,
        bank: Bank | None = None,
        *,
        method: HeatMapMethod = "gradient",
        layer: int | None = None,
        contrast: bool | None = None,
        first_block: int | None = None,
        mean: bool | None = None,
    ) -> HeatMap:
        """Where on a film a class is seen. A picture of a model's workings, not of a disease.

        label: a class of the bank, in any case. method: "similarity", "attention" or "gradient". layer: as in
        `embed_images`. contrast (True): against the reference class. first_block, mean: of "attention".
        """
        options = new_options(_abi.radz_heatmap_options)
        which = choice("method", _abi.radz_heatmap_method, "RADZ_HEATMAP_", method)
        fill(options, method=which, layer=layer, contrast=contrast, first_block=first_block, mean=mean)
        name = to_bytes("label", label)
        image = film if isinstance(film, Image) else Image(film, self.model.runtime)  # the map keeps it

        def work(s: Any, e: Any) -> HeatMap:
            side = lib.radz_heatmap_side(self.model._pointer)
            patches = NewArray(ctypes.c_float, side, side)
            whole = NewArray(ctypes.c_float, image.height, image.width)
            lib.radz_heatmap_patches(s, pointer(bank), image._pointer, name, options, patches.pointer, e)
            lib.radz_heatmap_expand(self.model._pointer, image._pointer, patches.pointer, whole.pointer, e)
            return HeatMap(label, method, whole.array, patches.array, image)

        return self._run(work, bank, image)

    def measure_heatmap(self, heatmap: HeatMap, bank: Bank | None = None, *, n_steps: int = 20) -> HeatMapScore:
        """Does the map know what the model looks at? Deletion and insertion in n_steps equal steps."""
        name, score = to_bytes("label", heatmap.label), new_options(_abi.radz_heatmap_score)
        curves = NewArray(ctypes.c_double, 2, n_steps + 1)
        image = heatmap.image

        def work(s: Any, e: Any) -> HeatMapScore:
            side = lib.radz_heatmap_side(self.model._pointer)
            with Matrix("patches", heatmap.patches, side) as m:
                if m.n != side:
                    raise ArgumentError(f"patches has {m.n} rows: expected ({side}, {side})")
                lib.radz_heatmap_measure(
                    s, pointer(bank), image._pointer, name, m.pointer, n_steps, score, curves.pointer, e
                )
            deletion, insertion = (list(map(float, curve)) for curve in curves.array.tolist())
            return HeatMapScore(**from_struct(score), deletion_curve=deletion, insertion_curve=insertion)

        return self._run(work, bank, image)

    # ---- Writing ----

    def generate(
        self,
        prompt: str,
        film: Film | None = None,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] | None = None,
        chat_template: str | None = None,
        system: str | None = None,
        on_token: Callable[[Token], object] | None = None,
    ) -> str:
        """The model's answer to a prompt, about a film or about nothing but the prompt.

        temperature 0 (default): always the most likely token. stop: texts that end the answer. on_token: told after
        every token; to answer with something true cancels (CancelledError). Other defaults are those of
        radz_generate_options: 256 tokens. A model that was trained for vectors only writes nothing of use.
        """
        options = new_options(_abi.radz_generate_options)
        fill(options, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed, stop=stop)
        fill(options, chat_template=chat_template, system=system)
        question = to_bytes("prompt", prompt)
        call = self._call()

        def told(progress: Any, _user: object) -> int:
            assert on_token is not None
            token = Token(**from_struct(progress.contents))
            return call.callback(lambda: on_token(token))

        if on_token is not None:
            options.token_fn = _abi.token_fn(told)
        with ExitStack() as stack:
            image = None if film is None else stack.enter_context(as_image(film, self.model.runtime))

            def work(s: Any, e: Any) -> str:
                text = ctypes.POINTER(ctypes.c_char)()
                lib.radz_generate(s, pointer(image), question, options, text, e)
                return take_text(text)

            return self._run(work, image, call=call)

    def method_scores(
        self,
        film: Film | None,
        labels: Sequence[str],
        method: Method,
        *,
        per_token: bool | None = None,
        prompt: str | None = None,
        prefix: str | None = None,
        chat_template: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
    ) -> tuple[dict[str, float], str]:
        """What the same model says of the classes without vectors of its own: score by label, and what it wrote.

        Scores of different methods do not compare; radz.h explains them under radz_method.
        """
        options = new_options(_abi.radz_method_options)
        which = choice("method", _abi.radz_method, "RADZ_METHOD_", method)
        fill(options, method=which, per_token=per_token, prompt=prompt, prefix=prefix, max_tokens=max_tokens)
        fill(options, chat_template=chat_template, system=system)
        names = string_array("labels", labels)
        with ExitStack() as stack:
            image = None if film is None else stack.enter_context(as_image(film, self.model.runtime))

            def work(s: Any, e: Any) -> tuple[dict[str, float], str]:
                scores = (ctypes.c_double * max(len(names), 1))()
                text = ctypes.POINTER(ctypes.c_char)()
                lib.radz_method_scores(s, pointer(image), names, len(names), options, scores, text, e)
                return dict(zip(labels, scores, strict=False)), take_text(text)

            return self._run(work, image)
