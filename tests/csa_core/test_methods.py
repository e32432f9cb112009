"""The methods by their names: whose keys are whose, and what is refused."""

import pytest
from pydantic import BaseModel

from csa_core.errors import UserError
from csa_core.methods import DEFAULT, METHODS, parent_of, parse, recipe

# Keys that one method alone reads, or two, by hand.
STAGED = {"crt", "lws", "mislas", "post_hoc_adjustment", "tau_normalisation"}
OWN = {
    "threshold": {"csa"},
    "warmup_epochs": {"csa"},
    "balance_ratio": {"csa", "class_balanced", "drs", "cmo"},
    "logit_adjustment_strength": {"csa", "logit_adjustment", "vs", "mixup", "remix", "cmo"},
    "lr": set(METHODS) - {"simsiam"},
    "second_stage": {"crt", "lws"},
    "mislas": {"mislas"},
    "first_stage": STAGED,
    "pretraining": set(METHODS),
    "seed": set(METHODS),
}
# Those that a run may have for its first stage.
BORROWED = dict.fromkeys(["threshold", "warmup_epochs", "balance_ratio", "logit_adjustment_strength"], STAGED)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_has_a_configuration_of_its_name(name: str) -> None:
    config = METHODS[name].Config
    assert config.model_fields["method"].default == name
    with pytest.raises(UserError, match="method: "):
        parse({"method": f"{name}x"}, "x")
    assert type(parse({"method": name}, "x")) is config and parse({"method": name}, "x").method == name


def test_no_two_methods_share_a_configuration() -> None:
    assert len({method.Config for method in METHODS.values()}) == len(METHODS)
    assert type(parse({}, "x")) is METHODS[DEFAULT].Config


@pytest.mark.parametrize("key", OWN)
@pytest.mark.parametrize("name", METHODS)
def test_a_key_of_another_method_is_refused_by_name(name: str, key: str) -> None:
    value = next(
        method.Config.model_fields[key].default for method in METHODS.values() if key in method.Config.model_fields
    )
    fields = {"method": name, key: value.model_dump(mode="json") if isinstance(value, BaseModel) else value}
    if name in OWN[key] | BORROWED.get(key, set()):
        assert getattr(parse(fields, "x"), key) == value
        return
    with pytest.raises(UserError) as error:
        parse(fields, "run.yaml")
    assert str(error.value).startswith(f"run.yaml: {key}: method {name} does not read it (")
    assert all(owner in str(error.value) for owner in OWN[key]) and str(error.value).endswith("; remove it")


def test_a_key_of_no_method_is_an_unknown_key() -> None:
    with pytest.raises(UserError, match="unknown key 'momentun': did you mean 'momentum'"):
        parse({"method": "ce", "momentun": 0.3}, "x")


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_keeps_what_a_method_reads(name: str) -> None:
    fields = {key: object() for key in OWN} | {"method": "csa", "tresh": 0.3}
    kept = recipe(fields, name)
    assert kept.pop("method") == name and fields["method"] == "csa"
    assert kept.pop("tresh") == 0.3, "a key of nobody is left for `parse` to refuse"
    assert kept.keys() == {key for key, owners in OWN.items() if name in owners | BORROWED.get(key, set())}
    assert all(kept[key] is fields[key] for key in kept)


def test_what_a_run_starts_from_follows_from_its_keys() -> None:
    assert parent_of(parse({"method": "ce"}, "x")) is None
    tuned = {"model": "resnet8", "seed": 7, "pretraining": {"epochs": 3}}
    encoder = parent_of(parse(tuned | {"method": "csa", "pretrained": True, "threshold": 0.3}, "x"))
    assert encoder == parse(tuned | {"method": "simsiam"}, "x")
    plain = parent_of(encoder)
    assert plain == parse(tuned | {"method": "simsiam", "pretraining": {"epochs": 3, "sam": "none"}}, "x")
    assert parent_of(plain) is None
