"""Rename the keys of a checkpoint by patterns, or leave them out.

Needs no torch.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.errors import OptionsError

_REGEX = "re:"
_STARS = re.compile(r"\*\*|\*")
_SEVERAL = re.compile(r"\s+\+\s+")

# a dict of strings alone is no mapping from strings or patterns, to type checkers
Patterns: TypeAlias = "Mapping[str, str] | Mapping[str | re.Pattern[str], str]"

# as Patterns; of None, which leaves modules out where they are judged, names stay as they are
ModuleNames: TypeAlias = (
    "Mapping[str, str] | Mapping[str, str | None] | Mapping[str | re.Pattern[str], str | None]"
)

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
    return {old.strip(): new.strip() for old, new in pairs}


@dataclass(frozen=True)
class NameOrigin:
    """What a new name stands for.

    Attributes:
        keys: the names it had; several where they are joined, in their order.
        parts: the new names of all that the key is split into, in order; empty where it is whole.
    """

    keys: tuple[str, ...]
    parts: tuple[str, ...] = ()


def rename_keys(
    keys: Iterable[str], patterns: Patterns, *, what: str = "key of the checkpoint"
) -> dict[str, str]:
    r"""Return key -> its new name, for every key; the first pattern that fits counts.

    A pattern fits a key, or the modules it begins with: ``{"backbone": "encoder"}`` makes
    ``encoder.0.weight`` of ``backbone.0.weight``. ``*`` stands for text without a dot, ``**`` for
    any, and those of the new name repeat those of the old in order. A compiled regular expression,
    or text after ``re:``, has to fit the whole key; the new name may say ``\1`` or ``\g<name>``.
    A pattern that fits no key goes on from the names that those before it gave.

    Args:
        keys: the names there are.
        patterns: old name -> new name.
        what: what a key is called in messages.

    Raises:
        OptionsError: a pattern is not valid or fits no key, two keys get one name, or tensors are
            to be joined or split, for which only an MLX model says the shapes.
    """
    if several := [f"{text_of(old)} = {new}" for old, new in patterns.items() if joins(old, new)]:
        raise OptionsError.listing(
            "tensors are joined and split for an MLX model of your own alone:",
            several,
            f"That is mlxport.load_weights, or {argument('target', 'pkg.mod:Net')}.",
        )
    return {origin.keys[0]: name for name, origin in new_names(keys, patterns, what=what).items()}


def new_names(
    keys: Iterable[str],
    patterns: Patterns,
    *,
    what: str = "key of the checkpoint",
    idle: Callable[[str | re.Pattern[str]], bool] = lambda _: False,
) -> dict[str, NameOrigin]:
    """Return new name -> what it stands for; as `rename_keys`, and tensors are joined and split.

    ``{"*.q + *.k + *.v": "*.qkv"}`` joins three keys of the same stars and the same rest behind
    them, ``{"*.qkv": "*.q + *.k + *.v"}`` splits one.

    Args:
        keys: the names there are.
        patterns: old name -> new name.
        what: what a key is called in messages.
        idle: tells of a pattern whether it may fit nothing.

    Raises:
        OptionsError: a pattern is not valid or fits nothing, two keys get one name, or a key that
            is to be joined with others lacks one of them; all of them are listed.
    """
    renaming = _Renaming(keys)
    rules = [_Rule(old, new) for old, new in patterns.items()]
    problems = [
        f"{rule}{renaming.taken_from(rule)}"
        for rule in rules
        if not renaming.apply(rule) and not idle(rule.old)
    ]
    if problems:
        raise OptionsError.listing(f"these patterns rename no {what}:", problems)
    if renaming.incomplete:
        raise OptionsError.listing("these cannot be joined:", renaming.incomplete)
    named: defaultdict[str, list[str]] = defaultdict(list)
    for one in renaming.current:
        named[one.name].append(" + ".join(map(printable, one.keys)))
    if clashes := {name: old for name, old in named.items() if len(old) > 1}:
        raise OptionsError.listing(
            "renaming gives several keys one name:",
            (f"{printable(name)}: {', '.join(old)}" for name, old in clashes.items()),
        )
    parts: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for one in renaming.current:
        parts[one.keys].append(one.name)
    return {
        one.name: NameOrigin(one.keys, tuple(parts[one.keys]) if one.part else ())
        for one in renaming.current
    }


def joins(old: str | re.Pattern[str], new: str | None) -> bool:
    """Tell whether a pattern joins or splits tensors."""
    return len(_olds(old)) > 1 or len(_SEVERAL.split(new or "")) > 1


def may_lead_to(new: str, names: Iterable[str]) -> bool:
    """Tell whether one of the names is what a new name may become, by its stars and groups."""
    parts = re.split(r"\*\*|\*|\\(?:\d+|g<\w+>)", new)
    pattern = re.compile(".*".join(map(re.escape, parts)))
    return any(pattern.fullmatch(name) for name in names)


class _Rule:
    """A pattern with its new name, compiled; several of one of them where tensors are joined."""

    def __init__(self, old: str | re.Pattern[str], new: str) -> None:
        self.old, self.olds, self.news = old, _olds(old), _SEVERAL.split(new)
        if len(self.olds) > 1 and len(self.news) > 1:
            raise OptionsError(f"{self} = {new}: a rule joins or splits, it does not do both")
        if len({len(_STARS.findall(one)) for one in self.olds if isinstance(one, str)}) > 1:
            raise OptionsError(f"{self}: what is joined needs as many stars on every side of a +")
        for several in (self.olds, self.news):
            if len(set(several)) < len(several):
                raise OptionsError(f"{self} = {new}: a name stands there twice")
        self.patterns = [_compile(one) for one in self.olds]
        self.templates = [_template(self.olds[0], one) for one in self.news]

    def __str__(self) -> str:
        return text_of(self.old)

    def fits(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self.patterns)


@dataclass
class _Named:
    """A tensor on its way from rule to rule: the keys it is made of, and its names so far."""

    keys: tuple[str, ...]
    name: str
    before: list[tuple[str, _Rule]] = field(default_factory=list)
    part: bool = False

    def become(self, name: str, rule: _Rule) -> None:
        self.before.append((self.name, rule))
        self.name = name


class _Renaming:
    """The names of all keys, as rules change them one after the other."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.current = [_Named((key,), key) for key in keys]
        self.incomplete: list[str] = []

    def apply(self, rule: _Rule) -> bool:
        """Apply a rule; tell whether it did anything."""
        if len(rule.patterns) > 1:
            return self._join(rule)
        if len(rule.templates) > 1:
            return self._split(rule)
        fitting = [one for one in self.current if rule.fits(one.name)]
        # what stands in the file goes first: {"a": "b", "b": "a"} exchanges two modules
        chosen = [one for one in fitting if not one.before] or fitting
        for one in chosen:
            if match := rule.patterns[0].fullmatch(one.name):
                one.become(match.expand(rule.templates[0]), rule)
        return bool(chosen)

    def taken_from(self, rule: _Rule) -> str:
        """Return which rule renamed a key that this one fits; empty where it fits none."""
        for one in self.current:
            for name, other in one.before:
                if rule.fits(name) and other is not rule:
                    return f": {printable(name)} is renamed by {other} already"
        return ""

    def _join(self, rule: _Rule) -> bool:
        groups: defaultdict[tuple[str, ...], dict[int, _Named]] = defaultdict(dict)
        for one in self.current:
            for place, pattern in enumerate(rule.patterns):
                if match := pattern.fullmatch(one.name):
                    groups[match.groups()][place] = one
        replaced: dict[int, list[_Named]] = {}
        for group in groups.values():
            place, first = min(group.items())
            match = rule.patterns[place].fullmatch(first.name)
            assert match is not None
            names = [match.expand(_template(rule.olds[place], str(one))) for one in rule.olds]
            if missing := [n for n, _ in enumerate(names) if n not in group]:
                lacks = ", ".join(printable(names[n]) for n in missing)
                self.incomplete.append(f"{printable(first.name)}: there is no {lacks} ({rule})")
            elif changed := [
                one.name
                for one in group.values()
                if one.part or len(one.keys) > 1 or id(one) in replaced
            ]:
                names = list(map(printable, changed))
                self.incomplete.append(f"{', '.join(names)}: joined or split already ({rule})")
            else:
                parts = [group[n] for n in range(len(names))]
                joined = _Named(tuple(key for one in parts for key in one.keys), first.name)
                joined.before += [step for one in parts for step in one.before]
                joined.become(match.expand(_template(rule.olds[place], rule.news[0])), rule)
                joined.before += [(one.name, rule) for one in parts[1:]]
                replaced |= {id(one): [] for one in parts} | {id(first): [joined]}
        self._replace(replaced)
        return bool(groups)

    def _split(self, rule: _Rule) -> bool:
        found = False
        replaced: dict[int, list[_Named]] = {}
        for one in self.current:
            match = rule.patterns[0].fullmatch(one.name)
            if match is None:
                continue
            found = True
            if one.part or len(one.keys) > 1:
                self.incomplete.append(f"{printable(one.name)}: joined or split already ({rule})")
                continue
            parts = [_Named(one.keys, one.name, list(one.before), True) for _ in rule.templates]
            for part, template in zip(parts, rule.templates, strict=True):
                part.become(match.expand(template), rule)
            replaced[id(one)] = parts
        self._replace(replaced)
        return found

    def _replace(self, replaced: Mapping[int, Sequence[_Named]]) -> None:
        """Put others into the places of some, by their identity."""
        self.current = [new for one in self.current for new in replaced.get(id(one), [one])]


def fits(pattern: str | re.Pattern[str], key: str) -> bool:
    """Tell whether a pattern of `rename_keys` fits a key.

    Raises:
        OptionsError: the pattern is not valid.
    """
    return any(_compile(one).fullmatch(key) for one in _olds(pattern))


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
    if idle := [text_of(pattern) for pattern, found in gone.items() if not found]:
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


def renamed(checkpoint: Checkpoint, patterns: ModuleNames) -> tuple[Checkpoint, dict[str, str]]:
    """Return the checkpoint under its new names, and new name -> original key.

    Without patterns it is the checkpoint itself.
    """
    patterns = {old: new for old, new in patterns.items() if new is not None}
    if not patterns:
        return checkpoint, {}
    names = rename_keys((*checkpoint.tensors, *checkpoint.others), patterns)
    tensors = {names[key]: tensor for key, tensor in checkpoint.tensors.items()}
    storage = {names[key]: checkpoint.storage[key] for key in checkpoint.tensors}
    original = {name: key for key, name in names.items()}
    others = {names.get(key, key): value for key, value in checkpoint.others.items()}
    return replace(checkpoint, tensors=tensors, storage=storage, others=others), original


def _olds(old: str | re.Pattern[str]) -> list[str | re.Pattern[str]]:
    if isinstance(old, re.Pattern) or old.startswith(_REGEX):
        return [old]
    return [*_SEVERAL.split(old)]


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
            raise OptionsError(f"{text_of(old)} has {groups} groups, but its new name is {new!r}")
        return new
    count, wanted = len(_STARS.findall(old)), len(_STARS.findall(new))
    if wanted > count:
        raise OptionsError(f"{old!r} has {count} stars, but its new name {new!r} has {wanted}")
    numbers = iter(range(1, wanted + 1))
    text = _STARS.sub(lambda _: f"\\g<{next(numbers)}>", new.replace("\\", r"\\"))
    return rf"{text}\g<{count + 1}>"


def text_of(old: str | re.Pattern[str]) -> str:
    """Return a pattern as it is written on the command line."""
    return f"{_REGEX}{old.pattern}" if isinstance(old, re.Pattern) else old
