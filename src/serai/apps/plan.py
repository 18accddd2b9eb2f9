"""What a bag of commands is: everything its tasks share, in a form that the journal keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from serai.describe.places import Places, is_url, path_here
from serai.describe.task import Item, Needs
from serai.describe.template import Template
from serai.dispatch.schedule.events import Retry
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Plan:
    """A command, and how each of its tasks is run.

    Attributes:
        command: with placeholders.
        cwd: the front end's directory, in which relative paths mean something.
        columns: the named columns that items have.
        out_dir: where outputs go.
        keep_dirs: keep the directories of inputs below ``out_dir``.
        shared: files and directories that every task needs, as paths on the front end.
        env: variables added to the node's environment.
        workdir: the directory on the node to run in; None for one of the task's own, or ``cwd`` on this machine.
        time_limit_s: 0 for none.
        needs: of its node.
        retry: when it ends badly.
    """

    command: str
    cwd: str
    columns: tuple[str, ...] = ()
    out_dir: str | None = None
    keep_dirs: bool = False
    shared: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    time_limit_s: float = 0.0
    needs: Needs = field(default_factory=Needs)
    retry: Retry = field(default_factory=Retry)

    def __post_init__(self) -> None:
        """Take a URL of this machine for its path.

        Raises:
            UsageError: outputs are to go elsewhere.
        """
        if self.out_dir is None or not is_url(self.out_dir):
            return
        here = path_here(self.out_dir)
        if here is None:
            raise UsageError(
                f"outputs come to a directory of this machine, and {self.out_dir!r} is a URL",
                hint=f"--out results, and then: serai cp -r results {self.out_dir}",
            )
        object.__setattr__(self, "out_dir", here)

    def template(self) -> Template:
        """The command, read."""
        return Template.parse(self.command, self.columns)

    def places(self) -> Places:
        """The rules for paths."""
        return Places(self.cwd, self.out_dir, self.keep_dirs)

    def describe(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The same from what the journal kept."""
        facts = dict(description)
        needs = dict(facts.pop("needs"))
        needs["software"] = tuple(needs.get("software", ()))
        needs["python"] = tuple(needs.get("python", ()))
        for name in ("columns", "shared"):
            facts[name] = tuple(facts[name])
        return cls(**facts | {"needs": Needs(**needs), "retry": Retry(**facts["retry"])})


def encode(item: Item) -> Any:
    """An item as JSON has it, as short as it can be: there may be millions."""
    if not item.columns and not item.outputs:
        if not item.inputs:
            return item.line
        if item.line is None:
            return list(item.inputs)
    facts = {"in": list(item.inputs), "line": item.line, "columns": dict(item.columns), "out": list(item.outputs)}
    return {name: value for name, value in facts.items() if value}


def decode(value: Any) -> Item:
    """The item that `encode` made this of."""
    if value is None or isinstance(value, str):
        return Item(line=value)
    if isinstance(value, list):
        return Item(inputs=tuple(value))
    return Item(
        inputs=tuple(value.get("in", ())),
        line=value.get("line"),
        columns=value.get("columns", {}),
        outputs=tuple(value.get("out", ())),
    )
