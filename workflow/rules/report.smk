rule table:
    input:
        metrics=lambda w: [f"{run.folder}/metrics.json" for run in PLAN.runs_of(w.table)],
        code=glob.glob(f"{ROOT}/workflow/report/*.py"),
    output:
        csv="results/{table}.csv",
        markdown="results/{table}.md",
    log:
        "results/logs/{table}.log",
    params:
        table=lambda w: PLAN.declaration(w.table),
        code=CODE,
    message:
        "Table results/{wildcards.table}.csv"
    shell:
        "printf %s {params.table:q} | python -m workflow.report.tables - --code-version {params.code:q}"
        " --csv {output.csv:q} --markdown {output.markdown:q} > {log:q} 2>&1"


rule contexts:
    input:
        weights=f"{REFERENCE.folder}/weights.safetensors",
        metrics=f"{REFERENCE.folder}/metrics.json",
        data=f"results/data/{REFERENCE.data}/dataset.safetensors",
        split=f"results/data/{REFERENCE.data}/{REFERENCE.split}.json",
    output:
        "results/contexts.safetensors",
    log:
        "results/logs/contexts.log",
    params:
        run=REFERENCE.folder,
    message:
        "Contexts that the reference run sees"
    shell:
        "python -m csa_core contexts {params.run:q} --data {input.data:q} --split {input.split:q}"
        " --out {output:q} > {log:q} 2>&1"


rule gallery:
    input:
        contexts="results/contexts.safetensors",
        code=f"{ROOT}/workflow/report/gallery.py",
    output:
        "results/contexts.png",
        "results/contexts.pdf",
    log:
        "results/logs/gallery.log",
    params:
        title=f"Context shift in a trained run ({REFERENCE.name}, seed {REFERENCE.config.seed})",
    message:
        "Gallery of contexts, results/contexts.png"
    shell:
        "python -m workflow.report.gallery {input.contexts:q} --title {params.title:q} --out {output:q} > {log:q} 2>&1"
