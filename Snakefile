# From config.yaml to tables: data -> split -> run -> table. Every rule only calls a command.
import os
import shlex
import sys

from snakemake.utils import min_version

min_version("9.13")  # pathvars


ROOT = os.path.abspath(str(workflow.current_basedir))


configfile: f"{ROOT}/config.yaml"


sys.path.insert(0, ROOT)

from csa_core.store import RESULTS, canonical
from workflow import devices, fresh
from workflow.command_line import check_command, or_one_line, requested
from workflow.fresh import origin
from workflow.plan import Plan
from workflow.snake import Asked, check_targets, retyped, say_at_the_end_when_interrupted, shown_names
from workflow.standing import doing

GIVEN = workflow.config_settings
or_one_line(check_command, GIVEN.config_args, [f"{ROOT}/config.yaml", *GIVEN.configfiles])

for key, given in GIVEN.config.items():
    if isinstance(given, (dict, list)):
        config[key] = or_one_line(retyped, config[key], given)
PLAN = or_one_line(Plan, config)
REFERENCE = PLAN.reference
REPORT_CODE = list(map(str, fresh.report_code()))
ASKED = Asked(PLAN, workflow)
# A job that Snakemake starts elsewhere says nothing to anybody.
DOING = doing(PLAN) if workflow.is_main_process else lambda run: "Train"

GPUS = devices.present(PLAN.config)
DEVICES = ",".join(GPUS)
# A job sees the devices that it was given and no others.
DEVICE = "cuda" if GPUS and PLAN.config.device.startswith("cuda") else PLAN.config.device
WORKERS = "" if PLAN.config.workers is None else f"--workers {PLAN.config.workers}"
EXPECTED = "" if PLAN.config.code_version else "--expect-code"
CACHE = os.path.abspath(f"{PLAN.state}/cache")

# Where commands find each other, and where they keep caches.
os.environ.update(
    PATH=f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', '')}",
    PYTHONPATH=ROOT,
    PYTHONSAFEPATH="1",  # not those of a working folder that happens to hold the same names
    # For what draws. As a param all would be drawn again for any key, as a resource each job would print it. With the
    # digests of the code, so that no job makes them again.
    CSA_CONFIG=canonical(config | {"codes": PLAN.codes}),
    # Libraries keep caches in the home folder otherwise, which compute nodes often cannot write to.
    XDG_CACHE_HOME=CACHE,
    MPLCONFIGDIR=f"{CACHE}/matplotlib",
    TRITON_HOME=CACHE,
    CUDA_CACHE_PATH=f"{CACHE}/cuda",
)

# As many jobs with a GPU as there are GPUs, where the user says nothing else and jobs run here.
if GPUS and workflow.local_exec and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", len(GPUS))


pathvars:
    results=PLAN.results,
    shared=PLAN.shared,


wildcard_constraints:
    data=r"[^/]+",
    split=r"[^/]+",
    run=r"[a-z_]+(/[^/]+)?",
    seed=r"\d+",
    table="|".join(PLAN.tables),
    figure=r"(?!contexts\.)[^/.]+",
    shown=shown_names(PLAN),


# On a cluster: seconds each, and the data set may need the network, so nobody queues for them.
localrules:
    all,
    extra,
    data,
    split,
    prepare,
    table,
    partial,
    figure,
    contexts,
    gallery,
    claims,
    choices,
    page,
    shown,
    comparison,
    estimate,
    status,


onstart:
    say_at_the_end_when_interrupted()


rule all:
    input:
        expand("<results>/{table}.csv", table=PLAN.usual),
        expand("<results>/figures/{figure}.svg", figure=PLAN.figures),
        "<results>/figures/contexts.png",
        ["<results>/choices.csv"] if PLAN.choosing else [],
        # The last two to be made, by which all others come to lie at the top of the results, too.
        "<shared>/claims.csv",
        "<shared>/report.html",


# What is beside the appendix and takes long: the tables that say `extra: true`.
rule extra:
    input:
        expand("<shared>/{table}.csv", table=PLAN.extra),
        expand("<shared>/figures/{figure}.svg", figure=PLAN.extra_figures),


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


or_one_line(check_targets, requested(), workflow.rules, PLAN)
