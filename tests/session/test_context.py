"""Contexts and sessions: what they name, what they refuse, and SAGA's names for it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import serai
from serai.access.ssh_options import Target
from serai.errors import UsageError
from serai.session.context import TYPES, Context, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.session.finding import Surroundings

WORDS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=40).filter(
    lambda text: not text.startswith("-") and "@" not in text
)


def test_a_context_says_what_it_names() -> None:
    context = serai.Context("ssh", key="~/.ssh/x", user="me", cert=str(Path("/c-cert.pub")))
    assert repr(context) == "Context('ssh', user='me', key='~/.ssh/x', cert='/c-cert.pub')"
    assert context == eval(repr(context), {"Context": Context})  # noqa: S307 - that is what a repr is for
    assert pickle.loads(pickle.dumps(context)) == context
    assert len({context, Context("ssh", key="~/.ssh/x", user="me", cert="/c-cert.pub")}) == 1


@given(st.sampled_from(sorted(TYPES)), st.data())
def test_sagas_names_and_ours_say_the_same(kind: str, data: st.DataObject) -> None:
    allowed = sorted(TYPES[kind] & {"user", "key", "cert", "proxy", "ca"})
    context = Context(kind, **{name: data.draw(WORDS) for name in allowed})
    assert Context.from_saga(context.to_saga()) == context


def test_sagas_attributes_are_read() -> None:
    said = {"Type": "x509", "UserProxy": "/tmp/p", "CertRepository": "/etc/ca"}
    assert Context.from_saga(said) == Context("x509", proxy="/tmp/p", ca="/etc/ca")


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"Type": "ssh", "UserPass": "hunter2"}, "holds no UserPass"),
        ({"UserID": "me"}, "has no Type"),
        ({"Type": "ssh", "UserVO": "x"}, "is no attribute"),
        ({"Type": "ssh", "UserProxy": "/p"}, "has no proxy"),
    ],
)
def test_what_saga_cannot_say_here_is_refused(attributes: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        Context.from_saga(attributes)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("ftp", {}),
        ("ssh", {"profile": "x"}),
        ("ssh", {"key": ""}),
        ("ssh", {"user": "-oProxyCommand=x"}),
        ("ssh", {"user": "a b"}),
        ("ssh", {"key": "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2"}),
        ("s3", {"endpoint": "https://me:hunter2@store"}),
        ("aws", {"profile": "x\ny hunter2"}),
    ],
)
def test_what_no_context_can_be_is_refused_without_repeating_it(kind: str, values: dict[str, str]) -> None:
    with pytest.raises(UsageError) as refused:
        Context(kind, **values)
    assert "hunter2" not in str(refused.value)


def test_a_context_becomes_options_of_ssh() -> None:
    context = Context("ssh", key="~/my keys/50%", cert="/c#1", user="me")
    assert context.ssh_options() == (
        'IdentityFile="~/my keys/50%%"', "IdentitiesOnly=yes", 'CertificateFile="/c#1"'
    )  # fmt: skip
    assert Context("ssh").ssh_options() == ()
    assert Target("lab", context=context).words()[:3] == ["-l", "me", "-o"]
    assert Target("lab", user="you", context=context).words()[:2] == ["-l", "you"]
    with pytest.raises(UsageError):
        Context("ssh", key='a"b').ssh_options()
    with pytest.raises(UsageError):
        Target("lab", context=Context("aws"))


def test_a_session_holds_what_it_is_given() -> None:
    one, two = Context("ssh", key="/a"), Context("aws", profile="p")
    with Session([one]) as session:
        session.add_context(two)
        session.add_context(two)
        assert list(session) == session.list_contexts() == [one, two]
        assert session.list_contexts("aws") == [two]
        assert one in session
        session.remove_context(one)
        assert list(session) == [two]
        with pytest.raises(KeyError):
            session.remove_context(one)
    assert list(session) == []


def test_a_default_session_has_what_is_found(
    home: Path, around: Callable[..., Surroundings], keygen: Callable[..., Path]
) -> None:
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text("[good]\naws_access_key_id=AKIA1\naws_secret_access_key=s\n"
                                           "[bad]\naws_access_key_id=AKIA1\n")  # fmt: skip
    session = Session(around=around())
    assert Context("aws", profile="good") in session
    assert Context("aws", profile="bad") not in session, "it cannot be used"
    assert {one.name for one in session.findings()} >= {"good", "bad"}
    mine = Context("ssh", key=str(keygen()))
    session.add_context(mine)
    assert session.list_contexts()[0] == mine
    session.remove_context(Context("aws", profile="good"))
    assert Context("aws", profile="good") not in session
