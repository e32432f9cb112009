"""The configuration: what is accepted, what is refused and how, and what makes a run itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csa_core.config import LATER, DataConfig, PretrainingConfig, parse_yaml, set_dotted
from csa_core.errors import SYNONYMS, UserError
from csa_core.methods import METHODS, parse, recipe
from csa_core.methods.csa import CsaConfig
from csa_core.store import canonical
from tests.helpers.malformed import MALFORMED


@pytest.mark.parametrize("text", MALFORMED)
def test_bad_input_is_one_line_that_names_the_key(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse(parse_yaml(text, "run.yaml"), "run.yaml")
    message = str(error.value)
    assert MALFORMED[text] in message
    assert message.startswith("run.yaml") and "\n" not in message


def test_defaults_are_the_appendix() -> None:
    config = CsaConfig()
    assert (config.epochs, config.batch_size, config.lr, config.lr_drops) == (200, 128, 0.2, (160, 180))
    assert (config.momentum, config.weight_decay, config.threshold, config.bank_batches) == (0.9, 2e-4, 0.8, 1)
    assert (config.warmup_epochs, config.plain_epochs, config.mix) == (10, 3, ("uniform", 0.0, 1.0))
    assert (config.model, config.data.source, config.data.imbalance_ratio) == ("resnet32", "cifar100", 100)


def test_integers_may_stand_for_floats() -> None:
    assert parse({"threshold": 0, "mix": ["uniform", 0, 1]}, "x") == parse(
        {"threshold": 0.0, "mix": ["uniform", 0.0, 1.0]}, "x"
    )


def test_a_run_is_not_its_unread_keys() -> None:
    for key, value in {"threshold": 0.1, "mix": ["beta", 1.0, 1.0], "bank_batches": 3, "warmup_epochs": 2}.items():
        for method in ("ce", "class_balanced", "logit_adjustment"):
            assert parse(recipe({key: value}, method), "x").digest() == parse({"method": method}, "x").digest()
        assert parse({key: value}, "x").digest() != CsaConfig().digest()
    no_bank = {"bank_batches": 0}
    assert parse(no_bank | {"threshold": 0.1}, "x").digest() == parse(no_bank, "x").digest()
    assert parse({"data": {"root": "elsewhere"}}, "x").digest() == CsaConfig().digest()
    assert parse({"data": {"split_seed": 1}}, "x").digest() != CsaConfig().digest()


# As they were when the first results were published: a key that came later must not change them.
DIGESTS = {
    "csa": "9ba2909e31d841fc3e825bf1c04941e0755c17a6b7f532580a95ef761dc31a9e",
    "ce": "a6563e6b3ad6c6251f9571b2f920b4ab14ce906f8712962710aa090a985466f9",
    "class_balanced": "740837a6aeb0fc5943dd7e68a1d192b1cc0ac6a36ee6090997f798b76b06f8f6",
    "logit_adjustment": "4d95cbcdb79961624682ebf7abde889d878ff82e59089cd88963299ab0722dd0",
    "simsiam": "713338923feb221106123c30c9cd4ffb56bd92b65759890989632cf11b8c3fe1",
}


@pytest.mark.parametrize("method", DIGESTS)
def test_a_run_keeps_the_identity_that_its_results_carry(method: str) -> None:
    assert parse({"method": method}, "x").digest() == DIGESTS[method]


def test_a_later_key_is_of_the_identity_where_it_is_not_as_before() -> None:
    for key, before in LATER.items():
        name, kinds = key.removeprefix("data."), [m.Config.model_fields for m in METHODS.values()]
        kinds = [DataConfig.model_fields] if name != key else kinds
        defaults = [fields[name].default for fields in kinds if name in fields]
        assert defaults and set(defaults) == {before}, "else old results would be taken for new ones"
    assert parse({"bank_start": "batch"}, "x").digest() != CsaConfig().digest()


def test_every_key_is_described_by_each_method_that_has_it() -> None:
    for method in METHODS.values():
        assert all(field.description for key, field in method.Config.model_fields.items() if key != "method")


def test_set_dotted() -> None:
    assert set_dotted({"data": {"root": "a"}, "lr": 1}, "data.source", "demo") == {
        "data": {"root": "a", "source": "demo"},
        "lr": 1,
    }


def test_a_mapping_is_merged_and_not_replaced() -> None:
    fields = {"data": {"root": "a", "source": "demo"}}
    assert set_dotted(fields, "data", {"split_seed": 1}) == {"data": {"root": "a", "source": "demo", "split_seed": 1}}


def test_yaml_merge_keys_work() -> None:
    text = "base: &base {lr: 0.1}\nrun: {<<: *base, seed: 2}"
    assert parse_yaml(text, "x")["run"] == {"lr": 0.1, "seed": 2}


def test_a_run_is_not_told_by_what_it_does_not_read() -> None:
    lists = {"source": "image_list", "train_list": "a.txt", "test_list": "b.txt"}

    def digest(**fields: object) -> str:
        return parse(fields, "test").digest()

    assert digest(lr_schedule="cosine") == digest(lr_schedule="cosine", lr_drops=[3]) != digest()
    assert digest(data=lists, crop_padding=2) == digest(data=lists) != digest(data=lists, colour_jitter=0.4)
    assert digest(colour_jitter=0.4) == digest() != digest(crop_padding=2)
    assert digest(data=lists) == digest(data=lists | {"root": "x", "train_list": "c.txt", "image_size": 224})
    assert digest(data=lists) != digest(data=lists | {"image_size": 160})
    assert digest(sync_batch_norm=True) == digest() != digest(ranks=2) != digest(ranks=2, sync_batch_norm=True)
    assert parse(recipe({"ranks": 2, "lr": 0.5}, "simsiam"), "test").digest() == digest(method="simsiam")
    unread = {"sam": "none", "sam_radius": 1.0, "density_exponent": 2.0}
    assert digest(method="simsiam", pretraining=unread) == digest(method="simsiam", pretraining={"sam": "none"})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_as_it_is_written_to_the_jobs(value: float) -> None:
    read = parse_yaml(canonical({"x": value}), "stdin")["x"]
    assert type(read) is float and read == value
    assert parse_yaml("x: 2e-4", "x")["x"] == 2e-4 and parse_yaml("x: 1E+3", "x")["x"] == 1000.0
    assert parse_yaml("x: [2e, e4, 1e-4a]", "x")["x"] == ["2e", "e4", "1e-4a"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0123", 83), ("0x1F", 31), ("0b11", 3), ("1:30", 90), ("1_000", 1000), ("1:30.5", 90.5), ("-017", -15)],
)
def test_a_number_that_yaml_reads_as_another_is_refused_with_both(text: str, value: float) -> None:
    for line in (f"seed: {text}", f"data: {{split_seed: {text}}}", f"mix: [uniform, {text}]"):
        with pytest.raises(UserError) as error:
            parse_yaml(line, "run.yaml")
        assert str(error.value) == (
            f"run.yaml: line 1 YAML 1.1 reads {text} as {value}; write that, or '{text}' in quotes if it is text"
        )
        assert text in str(parse_yaml(line.replace(text, f"'{text}'"), "run.yaml"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *[("learning_rate", "lr"), ("Learning-Rate", "lr"), ("bs", "batch_size"), ("wd", "weight_decay")],
        *[("mom", "momentum"), ("delta", "threshold"), ("gamma", "balance_ratio"), ("lambda", "mix"), ("lr_", "lr")],
        *[("tau", "logit_adjustment_strength"), ("num_epochs", "epochs"), ("arch", "model"), ("LR", "lr")],
        *[("dataset", "data.source"), ("data.imb_factor", "imbalance_ratio"), ("rho", "pretraining.sam_radius")],
        *[("data.Root", "root"), ("milestones", "lr_drops"), ("scheduler", "lr_schedule")],
    ],
)
def test_what_others_call_a_key_leads_to_ours(name: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"unknown key '{name}': did you mean '{meant}'"):
        parse(set_dotted({}, name, 1), "run.yaml")


def test_every_synonym_leads_to_something_that_is_there() -> None:
    """The keys of a run, of config.yaml, or the name of a method, device or distribution."""
    from workflow.declarations import DEVICES, WorkflowConfig

    keys = {key for method in METHODS.values() for key in method.Config.model_fields}
    inner = {f"data.{key}" for key in DataConfig.model_fields}
    inner |= {f"pretraining.{key}" for key in PretrainingConfig.model_fields}
    assert SYNONYMS.keys() <= keys | inner | WorkflowConfig.model_fields.keys() | METHODS.keys() | {*DEVICES, "uniform"}
    for meant, others in SYNONYMS.items():
        assert not set(others) & keys or meant == "seeds", f"{meant}: one of {others} is a key itself"


@pytest.mark.parametrize("value", ["no", "2020", "1.5"])
def test_text_that_yaml_reads_as_something_else_says_so(value: str) -> None:
    with pytest.raises(UserError, match="YAML reads .*; write it in quotes"):
        parse(parse_yaml(f"data: {{root: {value}}}", "run.yaml"), "run.yaml")


def test_own_images_are_taken_as_they_are_unless_a_profile_is_meant() -> None:
    def profile(**data: object) -> str:
        return str(parse({"data": data}, "test").data.profile)

    lists = {"train_list": "a", "test_list": "b"}
    assert profile(source="folder") == profile(source="image_list", **lists) == "as_is"
    assert profile(source="folder", imbalance_ratio=10) == profile(source="folder", max_class_count=5) == "exponential"
    assert profile(source="folder", profile="step") == "step"
    assert profile(source="demo") == profile() == "exponential"
    one, other = (parse({"data": {"source": "folder"} | more}, "test") for more in ({}, {"profile": "as_is"}))
    assert one.digest() == other.digest()


@pytest.mark.parametrize("key", ["train_list", "test_list"])
def test_lists_without_their_source_are_not_taken_for_cifar(key: str) -> None:
    with pytest.raises(UserError, match=f"data: {key} is for source image_list, and no source is given; add source"):
        parse({"data": {key: "a.txt", "root": "photos"}}, "run.yaml")
    assert parse({"data": {key: "a.txt", "source": "demo"}}, "run.yaml").data.source == "demo", "an override"
