# Tables and figures are drawn from finished runs: nothing here trains.


rule table:
    input:
        metrics=ASKED.table,
        code=REPORT_CODE,
    output:
        csv=report("<results>/{table}.csv", category="Tables", caption="../captions/table.rst"),
        rest=multiext(
            "<results>/{table}",
            ".seeds.csv",
            ".md",
            ".tex",
            ".claims.csv",
            ".choices.csv",
            ".json",
        ),
    log:
        "<results>/logs/{table}.log",
    params:
        drawing=lambda w: PLAN.drawing(w.table),
        prefix=lambda w, output: output.csv.removesuffix(".csv"),
    message:
        "Table {output.csv}"
    shell:
        'printf %s "$CSA_CONFIG" | python -m workflow.report.tables {wildcards.table} --config -'
        " --out {params.prefix:q} > {log:q} 2>&1"


# Asked for by name only: a table of what is finished so far, marked as partial.
rule partial:
    input:
        lambda w: ASKED.table(w, "partial/"),
        code=REPORT_CODE,
    output:
        multiext(
            "<results>/partial/{table}",
            ".csv",
            ".seeds.csv",
            ".md",
            ".tex",
            ".claims.csv",
            ".choices.csv",
            ".json",
        ),
    log:
        "<results>/logs/partial-{table}.log",
    params:
        drawing=lambda w: PLAN.drawing(w.table),
        prefix=lambda w, output: output[0].removesuffix(".csv"),
        finished=lambda w: PLAN.finished(w.table),
    message:
        "Partial table {params.prefix}.md"
    shell:
        'printf %s "$CSA_CONFIG" | python -m workflow.report.tables {wildcards.table} --config - --partial'
        " --out {params.prefix:q} > {log:q} 2>&1"


rule figure:
    input:
        metrics=ASKED.figure,
        histories=lambda w: [f"{run.folder}/history.csv" for run in PLAN.runs_of(ASKED.table_of(w))],
        code=REPORT_CODE,
    output:
        svg=report("<results>/figures/{figure}.svg", category="Figures", caption="../captions/figure.rst"),
        rest=multiext("<results>/figures/{figure}", ".pdf", ".png", ".csv"),
    log:
        "<results>/logs/figures/{figure}.log",
    params:
        drawing=lambda w: PLAN.drawing(ASKED.table_of(w)),
        prefix=lambda w, output: output.svg.removesuffix(".svg"),
    message:
        "Figure {wildcards.figure}"
    shell:
        'printf %s "$CSA_CONFIG" | python -m workflow.report.figures {wildcards.figure} --config -'
        " --out {params.prefix:q} > {log:q} 2>&1"


rule contexts:
    input:
        weights=ASKED.contexts,
        metrics=f"{REFERENCE.folder}/metrics.json",
        data=f"<shared>/data/{REFERENCE.data}/dataset.safetensors",
        split=f"<shared>/data/{REFERENCE.data}/{REFERENCE.split}.json",
    output:
        "<results>/figures/contexts.safetensors",
    log:
        "<results>/logs/figures/contexts-data.log",
    resources:
        gpu=1 if GPUS else 0,
        devices=DEVICES,
        state=PLAN.state,
        device=DEVICE,
        workers=WORKERS,
    params:
        run=lambda w, input: os.path.dirname(input.weights),
        root=REFERENCE.config.data.root,
    message:
        "Contexts that the reference run sees"
    shell:
        "python -m workflow.devices --of={resources.devices:q} --state {resources.state:q} {resources.gpu} --"
        " python -m csa_core contexts {params.run:q} --root {params.root:q} --data {input.data:q} --split {input.split:q}"
        " --device {resources.device} {resources.workers} --out {output:q} > {log:q} 2>&1"


GALLERY = f"Context shift in a trained run ({REFERENCE.name}, seed {REFERENCE.config.seed}); λ set from 0.5 to 1"
GALLERY = GALLERY if PLAN.config.figure.title else ""


rule gallery:
    input:
        contexts=lambda w: ASKED.gallery(GALLERY),
        code=REPORT_CODE,
    output:
        png=report("<results>/figures/contexts.png", category="Figures", caption="../captions/contexts.rst"),
        rest=multiext("<results>/figures/contexts", ".pdf", ".svg"),
    log:
        "<results>/logs/figures/contexts.log",
    params:
        title=GALLERY,
        prefix=lambda w, output: output.png.removesuffix(".png"),
    message:
        "Gallery of contexts"
    shell:
        "python -m workflow.report.gallery {input.contexts:q} --title {params.title:q}"
        " --out {params.prefix:q} > {log:q} 2>&1"


rule mistakes:
    input:
        predictions=ASKED.mistakes,
        metrics=f"{REFERENCE.folder}/metrics.json",
        data=f"<shared>/data/{REFERENCE.data}/dataset.safetensors",
    output:
        "<results>/figures/mistakes.safetensors",
    log:
        "<results>/logs/figures/mistakes.log",
    params:
        run=lambda w, input: os.path.dirname(input.predictions),
        root=REFERENCE.config.data.root,
    message:
        "Most confident mistakes of the reference run"
    shell:
        "python -m csa_core mistakes {params.run:q} --root {params.root:q} --data {input.data:q}"
        " --out {output:q} > {log:q} 2>&1"


rule claims:
    input:
        claims=ASKED.claims,
        code=REPORT_CODE,
    output:
        report("<results>/claims.csv", category="Claims", caption="../captions/claims.rst"),
    log:
        "<results>/logs/claims.log",
    message:
        "Claims {output}"
    shell:
        "python -m workflow.report.all_claims {input.claims:q} --out {output:q} > {log:q} 2>&1"


# With validation images alone: the value that they choose of each sweep, and its test score.
rule choices:
    input:
        choices=ASKED.choices,
        code=REPORT_CODE,
    output:
        "<results>/choices.csv",
    log:
        "<results>/logs/choices.log",
    message:
        "Choices {output}"
    shell:
        "python -m workflow.report.choices {input.choices:q} --out {output:q} > {log:q} 2>&1"


rule page:
    input:
        tables=ASKED.page,
        figures=expand("<results>/figures/{figure}.svg", figure=PLAN.figures),
        contexts="<results>/figures/contexts.png",
        mistakes="<results>/figures/mistakes.safetensors",
        provenance=[f"{run.folder}/provenance.json" for run in PLAN.all_runs()],
        code=REPORT_CODE,
    output:
        "<results>/report.html",
    log:
        "<results>/logs/report.log",
    message:
        "Page {output}"
    shell:
        "python -m workflow.report.page {input.tables:q}"
        " --figures {input.figures:q} {input.contexts:q} --mistakes {input.mistakes:q} --out {output:q} > {log:q} 2>&1"


# What a person types without a protocol's name is a link to that of the protocol in config.yaml.
rule shown:
    input:
        ASKED.shown,
    output:
        "<shared>/{shown}",
    log:
        "<results>/logs/{shown}.log",
    params:
        results=PLAN.results,
    message:
        "{output} is {input}"
    shell:
        "python -m workflow.view {params.results:q} > {log:q} 2>&1"


# Asked for by name: protocols side by side, those whose tables are drawn, and the published ones.
rule comparison:
    input:
        tables=ASKED.comparison,
        code=REPORT_CODE,
    output:
        "<shared>/comparison.html",
    log:
        "<shared>/logs/comparison.log",
    params:
        folders=lambda w, input: sorted({os.path.dirname(path) for path in input.tables}),
    message:
        "Page {output}"
    shell:
        "python -m workflow.report.comparison {params.folders:q} --out {output:q} > {log:q} 2>&1"


# Trains nothing: how far every run is. Beside a snakemake that runs, `make status` asks without its lock.
rule status:
    log:
        "<results>/logs/status.log",
    threads: 4096  # Snakemake lowers this to the cores it was given
    shell:
        'printf %s "$CSA_CONFIG" | python -m workflow.status --config - --cores {threads} | tee {log:q}'


# Trains nothing and makes no file: prints what is left to train, and about how long it takes.
rule estimate:
    log:
        "<results>/logs/estimate.log",
    threads: 4096  # Snakemake lowers this to the cores it was given
    shell:
        'printf %s "$CSA_CONFIG" | python -m workflow.estimate --config - --cores {threads} | tee {log:q}'
