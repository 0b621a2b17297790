#!/usr/bin/env bash
# The life of a label, from a folder of annotated people to a plan, and one label more afterwards.
#
#     life_of_a_label.sh PETA_FOLDER OUT [MINUTES [LABELS.toml]]
#
# PETA_FOLDER is the PEdesTrian Attribute data set (research only). OUT is new; at the end OUT/engine.plan answers all
# labels of LABELS.toml: by default the six of life_labels.toml; peta_labels.toml beside it has sixteen; sunglasses and
# backpack have to be among them. MINUTES (default 4) are those of the trunk's training; with 4 and six labels the whole
# takes about 12 minutes on two cores.
# At this size the scores show the way and no more: the trunk is a ResNet-18 of width 0.25 on crops of 96x48.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
peta=${1:?the folder of PETA} out=${2:?a new folder} minutes=${3:-4} labels=${4:-$here/life_labels.toml}
for label in sunglasses backpack; do
    grep -q "^\[labels.$label\]" "$labels" || { echo "$labels: expected $label among the labels" >&2; exit 1; }
done
[ ! -e "$out.later" ] || { echo "$out.later: left by an earlier run; remove it" >&2; exit 1; }

# 1. From a fully annotated set to disjoint sub-datasets: each person is annotated for one label only (paper, 3.2). Of
# people who were filmed for minutes, four images each: they would be most of what a label learns from.
graftsdk import peta "$peta" "$out" --labels "$labels" --licence "research only" --val-share 0.15 --per-person 4

# 2. What belongs together stands in one file beside the data; the importer has written the order of the classes.
cat >> "$out/graft.toml" << REGISTRY
[trunk]
arch = "resnet18"
width = 0.25
size = [96, 48]
minutes = $minutes

[defaults]
tap = "auto"
epochs = 8
views = 2
REGISTRY

# 3. One label is kept for later, as if nobody had thought of it yet.
mv "$out/sunglasses" "$out.later"

# 4. The trunk by the dynamic graph, a branch for each label, the plan.
graftsdk update "$out" --trunk --quiet
graftsdk status "$out"

# 5. What it is worth, from the plan itself, on people that no training saw.
graftsdk evaluate "$out/engine.plan" --data "$out" -o "$out/evaluation" --quiet
cp "$out/engine.plan" "$out/before.plan"

# 6. Months later: a new label. One command; no other label's part changes by a byte.
mv "$out.later" "$out/sunglasses"
graftsdk update "$out" --quiet
graftsdk plan diff "$out/before.plan" "$out/engine.plan"
graftsdk evaluate "$out/engine.plan" --data "$out" --labels sunglasses backpack --quiet
