from __future__ import annotations

import pytest

from longshore.check.template import CONVERSATIONS, render


@pytest.mark.parametrize(
    ("template", "outcome", "detail"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "rendered", ""),
        ("{% generation %}{{ messages }}{% endgeneration %}", "rendered", ""),
        (
            "{% for m in messages %}{% break %}{% endfor %}{{ messages | tojson(indent=2) }}{{ strftime_now('%Y') }}",
            "rendered",
            "",
        ),
        ("{# nothing #}", "empty", ""),
        ("{{ raise_exception('not so') }}", "refused", "not so"),
        ("{{ messages[9].role }}", "failed", "UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", "failed", "SecurityError"),
        ("{% set messages.x = 1 %}", "failed", "namespace"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "failed", "SecurityError"),
        ("{% endfor %}", "invalid", "line 1: "),
        ("a\n{{ 1 + }}", "invalid", "line 2: "),
        ("{{ 'a' * 10**10 }}", "failed", "MemoryError"),
        ("{% set a = ['a' * 10**6] %}{% for i in range(5000) %}{{ a[0] }}{% endfor %}", "failed", ""),
    ],
)
def test_a_template_is_run_where_it_does_no_harm(template: str, outcome: str, detail: str) -> None:
    outcomes = render(template, (("bos_token", "<s>"),))
    assert outcomes.keys() == CONVERSATIONS.keys()
    assert next(iter(outcomes.values()))[0] == outcome
    assert detail in next(iter(outcomes.values()))[1]


def test_a_template_that_never_ends_is_ended() -> None:
    loop = "{% for a in range(90000) %}" * 3 + "{% endfor %}" * 3
    ((outcome, why),) = set(render(loop).values())
    assert outcome == "failed"
    assert why in ("it needs more time or memory than any template should", "it took more than 20 s")  # a busy machine
