"""What holds of a server's trust however renewals, answers, starts and ends of its helpers follow one another."""

from hypothesis import given
from hypothesis import strategies as st

from codingagents.rewrite.specs import ControlTrust, TlsSpec
from codingagents.supervisor.helper_trust import HelperTrust, store_sha256
from codingagents.trust.facts import TrustTaken

ACTS = st.lists(st.sampled_from(["renew", "make", "ready", "take", "refuse", "end"]), max_size=60)


def tls(number: int) -> TlsSpec:
    return TlsSpec(server_name="a.test", anchors_pem=str(number), store="host")


@given(ACTS)
def test_each_renewal_is_answered_once_and_only_what_a_helper_held_is_said_to_hold(acts: list[str]) -> None:
    """A model of an honest helper: none, being made, or ready; with what it holds and what it was told since."""
    trust = HelperTrust("one", tls(0))
    renewed, answers = 0, list[ControlTrust]()
    helper: str | None = None
    holds, told = tls(0), list[TlsSpec]()
    ever_held = {store_sha256(tls(0))}
    for act in acts:
        if act == "renew":
            renewed += 1
            trust.renew(tls(renewed))
            if helper is not None:
                told.append(trust.offered().tls)
        elif act == "make" and helper is None:
            helper, holds, told = "made", trust.given(), []
        elif act == "ready" and helper == "made":
            helper = "ready"
            ever_held.add(store_sha256(holds))
            answers += trust.started(store_sha256(holds))
        elif act in {"take", "refuse"} and helper == "ready" and told:
            new = told.pop(0)
            holds = new if act == "take" else holds
            ever_held.add(store_sha256(holds))
            problem = None if act == "take" else "no"
            answers.append(trust.answered(TrustTaken(store_sha256=store_sha256(holds), problem=problem)))
        elif act == "end" and helper is not None:
            if helper == "made":
                answers += trust.failed("it ended")
            helper, told = None, []
        assert len(answers) <= renewed
        assert store_sha256(trust.held) in ever_held
        assert all(answer.store_sha256 in ever_held for answer in answers if answer.problem is None)
    if trust.given() is not trust.held:
        answers += trust.failed("so did the last one")
    answers += trust.give_up("the end")
    assert len(answers) == renewed
    assert store_sha256(trust.tls) in ever_held
