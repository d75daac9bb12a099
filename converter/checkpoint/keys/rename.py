"""Rename the keys of a checkpoint by patterns, or leave them out.

Needs no torch.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.errors import OptionsError

_REGEX = "re:"
_STARS = re.compile(r"\*\*|\*")

# a dict of strings alone is no mapping from strings or patterns, to type checkers
Patterns: TypeAlias = "Mapping[str, str] | Mapping[str | re.Pattern[str], str]"

# one pattern, or several
Dropped: TypeAlias = "str | re.Pattern[str] | Sequence[str | re.Pattern[str]]"


def parse_renames(options: Sequence[str]) -> dict[str | re.Pattern[str], str]:
    """Return the patterns of ``OLD=NEW`` texts.

    Raises:
        OptionsError: an option has no ``=``.
    """
    if problems := [option for option in options if "=" not in option]:
        raise OptionsError(f"{argument('rename')}: expected OLD=NEW, got {', '.join(problems)}")
    pairs = (option.rpartition("=")[::2] for option in options)
    return dict(pairs)


def rename_keys(
    keys: Iterable[str], patterns: Patterns, *, what: str = "key of the checkpoint"
) -> dict[str, str]:
    r"""Return key -> its new name, for every key; the first pattern that fits counts.

    A pattern fits a key, or the modules it begins with: ``{"backbone": "encoder"}`` makes
    ``encoder.0.weight`` of ``backbone.0.weight``. ``*`` stands for text without a dot, ``**`` for
    any, and those of the new name repeat those of the old in order. A compiled regular expression,
    or text after ``re:``, has to fit the whole key; the new name may say ``\1`` or ``\g<name>``.

    Args:
        keys: the names there are.
        patterns: old name -> new name.
        what: what a key is called in messages.

    Raises:
        OptionsError: a pattern is not valid or fits no key, or two keys get one name.
    """
    found: dict[str, str] = {key: key for key in keys}
    compiled = [(_compile(old), _template(old, new)) for old, new in patterns.items()]
    used: set[int] = set()
    taken: dict[int, str] = {}  # pattern -> why it renames no key, where it fits one
    texts = [_text(old) for old in patterns]
    for key in found:
        fitting = [n for n, (pattern, _) in enumerate(compiled) if pattern.fullmatch(key)]
        for number in fitting[1:]:
            taken.setdefault(
                number, f": {printable(key)} is renamed by {texts[fitting[0]]} already"
            )
        if fitting and (match := compiled[fitting[0]][0].fullmatch(key)):
            found[key] = match.expand(compiled[fitting[0]][1])
            used.add(fitting[0])
    if idle := [text + taken.get(n, "") for n, text in enumerate(texts) if n not in used]:
        raise OptionsError.listing(f"these patterns rename no {what}:", idle)
    named: defaultdict[str, list[str]] = defaultdict(list)
    for key, name in found.items():
        named[name].append(key)
    if clashes := {name: old for name, old in named.items() if len(old) > 1}:
        raise OptionsError.listing(
            "renaming gives several keys one name:",
            (
                f"{printable(name)}: {', '.join(map(printable, old))}"
                for name, old in clashes.items()
            ),
        )
    return found


def fits(pattern: str | re.Pattern[str], key: str) -> bool:
    """Tell whether a pattern of `rename_keys` fits a key.

    Raises:
        OptionsError: the pattern is not valid.
    """
    return _compile(pattern).fullmatch(key) is not None


def without_dropped(
    checkpoint: Checkpoint, patterns: Iterable[str | re.Pattern[str]]
) -> Checkpoint:
    """Return the checkpoint without the keys that patterns of `rename_keys` fit.

    Raises:
        OptionsError: a pattern is not valid, or fits no key.
    """
    patterns = tuple(patterns)
    keys = (*checkpoint.tensors, *checkpoint.others)
    gone = {pattern: {key for key in keys if fits(pattern, key)} for pattern in patterns}
    if idle := [_text(pattern) for pattern, found in gone.items() if not found]:
        raise OptionsError.listing("these patterns drop no key of the checkpoint:", idle)
    if not patterns:
        return checkpoint
    every = set().union(*gone.values())
    tensors = {key: tensor for key, tensor in checkpoint.tensors.items() if key not in every}
    dropped = {key: checkpoint.tensors[key] for key in checkpoint.tensors if key in every}
    return replace(
        checkpoint,
        tensors=tensors,
        storage={key: checkpoint.storage[key] for key in tensors},
        others={key: value for key, value in checkpoint.others.items() if key not in every},
        dropped={**checkpoint.dropped, **dropped},
        order=checkpoint.order or tuple(checkpoint.tensors),
    )


def renamed(checkpoint: Checkpoint, patterns: Patterns) -> tuple[Checkpoint, dict[str, str]]:
    """Return the checkpoint under its new names, and new name -> original key.

    Without patterns it is the checkpoint itself.
    """
    if not patterns:
        return checkpoint, {}
    names = rename_keys((*checkpoint.tensors, *checkpoint.others), patterns)
    tensors = {names[key]: tensor for key, tensor in checkpoint.tensors.items()}
    storage = {names[key]: checkpoint.storage[key] for key in checkpoint.tensors}
    original = {name: key for key, name in names.items()}
    others = {names.get(key, key): value for key, value in checkpoint.others.items()}
    return replace(checkpoint, tensors=tensors, storage=storage, others=others), original


def _compile(old: str | re.Pattern[str]) -> re.Pattern[str]:
    if isinstance(old, re.Pattern):
        return old
    if not old.startswith(_REGEX):
        parts = _STARS.split(old)
        stars = [r"(.*)" if star == "**" else r"([^.]*)" for star in _STARS.findall(old)]
        text = "".join(
            re.escape(part) + star for part, star in zip(parts, [*stars, ""], strict=True)
        )
        return re.compile(rf"{text}((?:\..*)?)")
    try:
        return re.compile(old.removeprefix(_REGEX))
    except re.error as error:
        raise OptionsError(f"{old!r} is not a regular expression: {error}") from error


def _template(old: str | re.Pattern[str], new: str) -> str:
    if isinstance(old, re.Pattern) or old.startswith(_REGEX):
        groups = _compile(old).groups
        if any(int(number) > groups for number in re.findall(r"\\(\d+)", new)):
            raise OptionsError(f"{_text(old)} has {groups} groups, but its new name is {new!r}")
        return new
    count, wanted = len(_STARS.findall(old)), len(_STARS.findall(new))
    if wanted > count:
        raise OptionsError(f"{old!r} has {count} stars, but its new name {new!r} has {wanted}")
    numbers = iter(range(1, wanted + 1))
    text = _STARS.sub(lambda _: f"\\g<{next(numbers)}>", new.replace("\\", r"\\"))
    return rf"{text}\g<{count + 1}>"


def _text(old: str | re.Pattern[str]) -> str:
    return f"{_REGEX}{old.pattern}" if isinstance(old, re.Pattern) else old
