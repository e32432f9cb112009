rule data:
    input:
        ASKED.data,
    output:
        "<shared>/data/{data}/dataset.safetensors",
    log:
        "<shared>/logs/data/{data}.log",
    resources:
        # With the places of images and lists: a resource, because the same images elsewhere are not read again.
        config=lambda w: or_one_line(PLAN.data_json, w.data),
        origin=lambda w: or_one_line(origin, PLAN, w.data),
    params:
        config=lambda w: or_one_line(PLAN.data_json, w.data, False),
        files=lambda w: or_one_line(PLAN.data_files, w.data),
        code=PLAN.data_code,
    message:
        "Data set {wildcards.data}"
    shell:
        "printf %s {resources.config:q} | python -m csa_core data - --out {output:q} --made-from {resources.origin:q}"
        " > {log:q} 2>&1 && {{ grep '^note: ' {log:q} >&2 || true; }}"


rule split:
    input:
        "<shared>/data/{data}/dataset.safetensors",
    output:
        "<shared>/data/{data}/{split}.json",
    log:
        "<shared>/logs/data/{data}/{split}.log",
    params:
        config=lambda w: or_one_line(PLAN.split_json, w.data, w.split),
        code=PLAN.data_code,
    message:
        "Split {wildcards.split} of {wildcards.data}"
    shell:
        "printf %s {params.config:q} | python -m csa_core split - --data {input:q} --out {output:q} > {log:q} 2>&1"
        " && {{ grep '^note: ' {log:q} >&2 || true; }}"


# What needs a network or the original archives, for a login node: training then needs these files alone (and, of an
# image_list, its images).
rule prepare:
    input:
        PLAN.splits(),


# Makes no file: decodes every image of the protocol's folder or lists once, and names those that cannot be.
rule check:
    log:
        "<shared>/logs/check.log",
    threads: 4096  # Snakemake lowers this to the cores it was given
    params:
        config=canonical({"data": REFERENCE.config.data.model_dump(mode="json")}),
    message:
        "Check every image"
    shell:
        "(printf %s {params.config:q} | python -m csa_core check - --workers {threads}) 2>&1 | tee {log:q}"
