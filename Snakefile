# From config.yaml to tables: data -> split -> run -> table. Every rule only calls a command.
import glob
import os
import sys
from functools import partial

from snakemake.utils import min_version

min_version("9.0")


configfile: os.path.join(workflow.basedir, "config.yaml")


ROOT = workflow.basedir
sys.path.insert(0, ROOT)

from csa_core.store import RESULTS, canonical
from workflow.pending import PENDING, write_pending
from workflow.plan import Plan, or_one_line

PLAN = or_one_line(Plan, config)
REFERENCE = PLAN.reference
REPORT_CODE = sorted(glob.glob(f"{ROOT}/workflow/report/*.py") + glob.glob(f"{ROOT}/workflow/report/*.j2"))
run_of = partial(or_one_line, PLAN.run_of)
table_of = partial(or_one_line, PLAN.table_of)

# What the commands run with. None of it is a reason to run one again.
os.environ.update(
    PATH=f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', '')}",
    PYTHONPATH=ROOT,
    PYTHONSAFEPATH="1",  # not those of a working folder that happens to hold the same names
    CSA_DEVICE=PLAN.config.device,
    CSA_WORKERS="" if PLAN.config.workers is None else str(PLAN.config.workers),
    CSA_COMPILE=PLAN.config.compile,
    CSA_GANG=str(PLAN.config.gang),
    CSA_PENDING=PENDING if PLAN.config.gang > 1 else "",
    CSA_CONFIG=canonical(config),
    CSA_EXPECT_CODE="" if PLAN.config.code_version else PLAN.code,
)


wildcard_constraints:
    data=r"[^/]+",
    split=r"[^/]+",
    run=r"[a-z_]+(/[^/]+)?",
    seed=r"\d+",
    table="|".join(PLAN.tables),
    figure=r"(?!contexts)[a-z_]+[0-9]*(-[a-zA-Z_0-9]+)?",


# On a cluster: seconds each, and the data set may need the network, so nobody queues for them.
localrules:
    all,
    data,
    split,
    table,
    partial,
    figure,
    contexts,
    gallery,
    claims,
    page,
    estimate,


onstart:
    # Only Snakemake knows which runs were asked for and are not there yet.
    if PLAN.config.gang > 1:
        write_pending(job for job in workflow.dag.needrun_jobs() if job.rule.name == "train")


rule all:
    input:
        expand("results/{table}.csv", table=PLAN.tables),
        expand("results/figures/{figure}.svg", figure=PLAN.figures),
        "results/figures/contexts.png",
        "results/claims.csv",
        "results/report.html",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"
