"""Random overrides: one line, or the key has the value."""

import copy
import math
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lad.engine.config import _apply_override, load_config
from lad.engine.keys import known_keys
from lad.engine.targets import unsafe_values

TOY = str(Path(__file__).parents[1] / "engine/toy_config.py")
CONFIG = load_config(TOY)
KNOWN = unsafe_values(CONFIG)
KEYS = sorted(known_keys(CONFIG))
WORDS = st.sampled_from(
    ["1", "-1", "0.5", "1e-3", "nan", "inf", "true", "null", "abc", "[1,2]", "{a: 1}", "[]", "{}"]
    + ["'a b'", "${train.seed}", "${nothing}", "${", "[1", "a,b", "range(3)", "1=2", "", " ", "é"]
    + ["{_target_: os.getcwd}", "train.seed", "\\", "\n", "'", '"', "~", "+", "%", "#", "$", "!!x"]
)
VALUES = st.one_of(WORDS, st.text(max_size=8), st.lists(WORDS, max_size=3).map("".join))


def check(text: str) -> None:
    """Fails unless an override is refused in one line, or what it says is there."""
    config = copy.deepcopy(CONFIG)
    try:
        _apply_override(config, text, KNOWN)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
        return
    key = text.partition("=")[0].lstrip("+ \t")
    assert OmegaConf.is_config(config) and config.keys() >= CONFIG.keys()
    changed = copy.deepcopy(config)
    for node in (changed, before := copy.deepcopy(CONFIG)):
        OmegaConf.update(node, key.strip(), None, force_add=True)
    assert OmegaConf.to_container(changed) == OmegaConf.to_container(before), "another key changed"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(KEYS), VALUES)
@example("train.max_iter", "a\nb")
@example("optimizer.lr", "${train.seed}")
def test_any_value_of_a_known_key(key, value):
    check(f"{key}={value}")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=12), st.tuples(st.text(max_size=9), VALUES).map("=".join)))
def test_any_text(text):
    check(text)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from([k for k in KEYS if k.startswith("train.")]), st.text("adeinrst._", max_size=5)
)
def test_keys_near_known_ones(key, more):
    check(f"{key}{more}=1")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_applied(value):
    config = load_config(TOY, [f"optimizer.lr={value!r}"])
    assert math.isclose(config.optimizer.lr, value) and type(config.optimizer.lr) is type(value)


def test_numbers_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match=r"optimizer\.lr=fast"):
        load_config(TOY, ["optimizer.lr=fast"])
