rule train:
    input:
        data=lambda w: f"<shared>/data/{ASKED.run(w).data}/dataset.safetensors",
        split=lambda w: f"<shared>/data/{ASKED.run(w).data}/{ASKED.run(w).split}.json",
        parent=lambda w: or_one_line(PLAN.parent_files, ASKED.run(w)),
    output:
        expand("<results>/runs/{{run}}/seed={{seed}}/{file}", file=RESULTS),
    log:
        "<results>/logs/runs/{run}/seed={seed}.log",
    threads: lambda w: PLAN.config.threads * ASKED.run(w).ranks
    resources:
        gpu=lambda w: ASKED.run(w).ranks if GPUS else 0,
        # Text for the command line, here because no change of a resource trains again.
        devices=DEVICES,
        state=PLAN.state,
        device=DEVICE,
        workers=WORKERS,
        compile=PLAN.config.compile,
        capture=PLAN.config.capture,
        expected=EXPECTED,
        what=lambda w: DOING(ASKED.run(w)),
    params:
        # One sorted JSON string: any value that changes trains again, and nothing else does.
        config=lambda w: ASKED.run(w).json,
        code=lambda w: PLAN.code_of(ASKED.run(w).config.method),
        out=lambda w, output: os.path.dirname(output[0]),
        parent=lambda w, input: f"--parent {shlex.quote(str(input.parent))}" if input.parent else "",
    message:
        "{resources.what} {wildcards.run}, seed {wildcards.seed}"
    shell:
        "printf %s {params.config:q} | python -m workflow.devices --of={resources.devices:q} --state {resources.state:q}"
        " {resources.gpu} --"
        " python -m csa_core train - --data {input.data:q} --split {input.split:q} {params.parent} --out {params.out:q}"
        " --state {resources.state:q} --device {resources.device} --threads {threads} {resources.workers}"
        " --wait --compile {resources.compile} --capture {resources.capture}"
        " --code-version {params.code:q} {resources.expected} > {log:q} 2>&1"
