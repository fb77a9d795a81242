"""Two HPA specs are the same if they ask for the same, however the server or a person writes them."""

from cluster_support import AFTER, CPU_70, QUEUE_30
from hypothesis import given
from hypothesis import strategies as st

from simulations.api_server import rules
from tools.cluster.comparison import canonical, differences, filled_in, same


@given(st.integers(1, 10**6))
def test_a_quantity_is_the_same_however_it_is_written(milli):
    def spec(text):
        return {"maxReplicas": 1, "metrics": [{"pods": {"target": {"averageValue": text}}}]}

    forms = [f"{milli}m", f"{milli * 1000}u", f"{milli}e-3", f"{milli / 1000:.3f}", f"{milli * 10**6}n"]
    assert all(same(spec(forms[0]), spec(form)) for form in forms)
    assert not same(spec(forms[0]), spec(f"{milli + 1}m"))
    assert same(spec(f"{milli}Ki"), spec(str(milli * 1024)))


@given(
    st.fixed_dictionaries(
        {"maxReplicas": st.integers(1, 9)},
        optional={
            "minReplicas": st.integers(1, 9),
            "metrics": st.sampled_from([[], [CPU_70], [QUEUE_30, CPU_70]]),
            "behavior": st.fixed_dictionaries(
                {},
                optional={
                    "scaleUp": st.fixed_dictionaries({}, optional={"selectPolicy": st.just("Min")}),
                    "scaleDown": st.fixed_dictionaries({}, optional={"stabilizationWindowSeconds": st.just(60)}),
                },
            ),
        },
    )
)
def test_a_spec_is_the_same_with_what_the_server_fills_in(spec):
    full = rules.with_defaults(spec)
    assert same(spec, full)
    assert canonical(canonical(spec)) == canonical(spec)
    assert differences(spec, full) == ()
    assert bool(filled_in(spec, full)) == (canonical(spec) != {k: v for k, v in spec.items() if v})


def test_differences_are_named_by_their_place():
    after = {**AFTER, "maxReplicas": 8, "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}
    found = differences(AFTER, after)
    assert "maxReplicas is 8, not 6" in found
    assert any(text.startswith("behavior is ") for text in found)
