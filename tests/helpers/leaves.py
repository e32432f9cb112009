"""Each leaf of a run's configuration, and which runs read it."""

from typing import Any

# One run of every kind, by method and what it changes.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "csa": ("csa", {}),
    "csa without bank": ("csa", {"bank_batches": 0}),
    "csa, adjusted": ("csa", {"resampling_loss": "logit_adjustment"}),
    "ce": ("ce", {}),
    "class_balanced": ("class_balanced", {}),
    "logit_adjustment": ("logit_adjustment", {}),
    "ce, pretrained": ("ce", {"pretrained": True}),
    "simsiam": ("simsiam", {"pretraining.sam": "none"}),
    "sam": ("simsiam", {"pretraining.sam": "sam"}),
    "rwsam": ("simsiam", {}),
    "crt": ("crt", {}),
    "crt on csa": ("crt", {"first_stage": "csa"}),
    "lws": ("lws", {}),
    "post_hoc_adjustment": ("post_hoc_adjustment", {}),
    "post_hoc_adjustment of csa": ("post_hoc_adjustment", {"first_stage": "csa"}),
    "tau_normalisation": ("tau_normalisation", {}),
}
ALL = set(RUNS)
SUPERVISED = ALL - {"simsiam", "sam", "rwsam"}
ADJUSTED_AFTER = {"post_hoc_adjustment", "post_hoc_adjustment of csa"}
SECOND_STAGE = {"crt", "crt on csa", "lws"}
CSA = {"csa", "csa without bank", "csa, adjusted", "crt on csa", "post_hoc_adjustment of csa"}
BANK = CSA - {"csa without bank"}
PRETRAINED = {"ce, pretrained", "simsiam", "sam", "rwsam"}
# Leaf: another value, and the runs that read the leaf (by hand, from what each method does).
LEAVES: dict[str, tuple[Any, set[str]]] = {
    "model": ("resnet20", ALL),
    "epochs": (40, SUPERVISED),
    "batch_size": (32, SUPERVISED),
    "lr": (0.05, SUPERVISED),
    "lr_schedule": ("cosine", SUPERVISED),
    "lr_warmup_epochs": (2, SUPERVISED),
    "lr_drops": ([20, 25], SUPERVISED),
    "momentum": (0.8, SUPERVISED),
    "weight_decay": (1.0e-3, SUPERVISED),
    "crop_padding": (1, SUPERVISED),
    "colour_jitter": (0.4, set()),
    "precision": ("bfloat16", ALL),
    "ranks": (2, SUPERVISED),
    "sync_batch_norm": (True, set()),
    "horizontal_flip": (True, ALL),
    "evaluate_every": (3, ALL),
    "warmup_epochs": (2, CSA),
    "plain_epochs": (1, CSA),
    "threshold": (0.35, BANK),
    "bank_batches": (3, BANK),
    "bank_reset": ("epoch", BANK),
    "bank_start": ("batch", BANK),
    "mix": (["beta", 5.0, 5.0], BANK),
    "activation_map": ("cam", BANK),
    "mask_exponent": (1.5, BANK),
    "mask_forward": ("eval", BANK),
    "balance_ratio": (0.6, CSA | {"class_balanced"}),
    "uniform_loss": ("logit_adjustment", CSA),
    "resampling_loss": ("logit_adjustment", CSA - {"csa, adjusted"}),
    "logit_adjustment_strength": (0.7, {"logit_adjustment", "csa, adjusted"}),
    "post_hoc_strength": (0.5, ADJUSTED_AFTER),
    "norm_exponent": (0.5, {"tau_normalisation"}),
    "second_stage.epochs": (7, SECOND_STAGE),
    "second_stage.lr": (0.05, SECOND_STAGE),
    "second_stage.lr_drops": ([3], SECOND_STAGE),
    "second_stage.weight_decay": (1.0e-3, SECOND_STAGE),
    "data.profile": ("step", ALL),
    "data.selection": ("some", ALL),
    "data.imbalance_ratio": (20, ALL),
    "data.max_class_count": (200, ALL),
    "data.split_seed": (5, ALL),
    "data.groups": ("cifar100_paper", ALL),
    "data.root": ("elsewhere", set()),
    "data.train_list": ("train.txt", set()),
    "data.test_list": ("test.txt", set()),
    "data.image_size": (24, set()),
    "pretraining.epochs": (31, PRETRAINED),
    "pretraining.batch_size": (64, PRETRAINED),
    "pretraining.lr": (0.01, PRETRAINED),
    "pretraining.momentum": (0.5, PRETRAINED),
    "pretraining.weight_decay": (1.0e-4, PRETRAINED),
    "pretraining.smallest_crop": (0.3, PRETRAINED),
    "pretraining.projector_width": (128, PRETRAINED),
    "pretraining.predictor_width": (32, PRETRAINED),
    "pretraining.sam_radius": (0.1, {"ce, pretrained", "sam", "rwsam"}),
    "pretraining.density_exponent": (0.5, {"ce, pretrained", "rwsam"}),
}
