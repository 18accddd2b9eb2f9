"""The functions of the ClassAd language.

HTCondor's library evaluates a call of a function that it does not have to ERROR and says no more, so that nothing would
ever match, and nobody would be told why. It does not tell which functions it has either: they are listed here.
"""

from __future__ import annotations

import difflib

# As HTCondor's manual spells them; the language does not look at case.
FUNCTIONS = (
    "HasSoftware",  # our own
    "absTime", "allCompare", "anyCompare", "argsToList", "avg", "bool", "ceil", "ceiling", "countMatches",
    "currentTime", "dayTime", "debug", "envV1ToV2", "eval", "evalInEachContext", "floor", "formatTime",
    "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getDays", "getHours", "getMinutes", "getMonth", "getSeconds",
    "getYear", "identicalMember", "ifThenElse", "int", "interval", "isAbsTime", "isBoolean", "isClassad", "isError",
    "isInteger", "isList", "isReal", "isRelTime", "isString", "isUndefined", "join", "listToArgs", "max", "member",
    "mergeEnvironment", "min", "pow", "quantize", "random", "real", "regexp", "regexpMember", "regexps", "relTime",
    "replace", "replaceAll", "round", "size", "split", "splitSlotName", "splitTime", "splitUserName", "strcat",
    "strcmp", "stricmp", "string", "stringListAvg", "stringListIMember", "stringListISubsetMatch", "stringListMax",
    "stringListMember", "stringListMin", "stringListSize", "stringListSubsetMatch", "stringListSum",
    "stringList_regexpMember", "stringListsIntersect", "substr", "sum", "time", "timeZoneOffset", "toLower", "toUpper",
    "unparse", "unresolved", "userHome", "userMap", "versionEQ", "versionGE", "versionGT", "versionLE", "versionLT",
    "version_in_range", "versioncmp",
)  # fmt: skip
_KNOWN = {name.lower(): name for name in FUNCTIONS}
_MOST_NEAR = 3


def is_function(name: str) -> bool:
    """Whether the language has a function of this name."""
    return name.lower() in _KNOWN


def nearest(name: str) -> tuple[str, ...]:
    """The functions whose names are most like one that is unknown."""
    near = difflib.get_close_matches(name.lower(), _KNOWN, n=_MOST_NEAR)
    return tuple(_KNOWN[one] for one in near)
