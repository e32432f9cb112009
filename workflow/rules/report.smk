rule table:
    message:
        "Table results/{wildcards.table}.csv"
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
    shell:
        "printf %s {params.table:q} | python -m workflow.report.tables - --code-version {params.code:q}"
        " --csv {output.csv:q} --markdown {output.markdown:q} > {log:q} 2>&1"
