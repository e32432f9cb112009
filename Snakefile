# From config.yaml to tables: data -> split -> run -> table. Every rule only calls a command.
import glob
import os
import sys

from snakemake.utils import min_version

min_version("9.0")


configfile: os.path.join(workflow.basedir, "config.yaml")


ROOT = workflow.basedir
sys.path.insert(0, ROOT)

from csa_core.store import RESULTS, code_digest
from workflow.plan import Plan, or_one_line

PLAN = or_one_line(Plan, config)
PINNED = PLAN.config.code_version is not None
CODE = PLAN.config.code_version if PINNED else code_digest()
REFERENCE = PLAN.reference
REPORT_CODE = sorted(glob.glob(f"{ROOT}/workflow/report/*"))

# The commands run with this Python and import csa_core and workflow from this folder.
shell.prefix(
    f"export PATH='{os.path.dirname(sys.executable)}':\"$PATH\" PYTHONPATH='{ROOT}'"
    f" CSA_DEVICE={PLAN.config.device}; "
)


wildcard_constraints:
    data=r"[^/]+",
    split=r"[^/]+",
    run=r"[a-z_]+(/[^/]+)?",
    seed=r"\d+",
    table="|".join(PLAN.tables),
    figure="|".join(PLAN.figures),


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
