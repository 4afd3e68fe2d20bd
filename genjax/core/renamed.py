"""Names of earlier formats."""

# Old -> new keys of evaluation.json, streamed.json and metrics.jsonl. Suffixes ("_reference", "_test") and prefixes
# ("monitor/", section names) of a key are unchanged.
METRICS: dict[str, str] = {
    "told_apart": "c2st_accuracy",
    "neighbours_alike": "one_nn_accuracy",
    "twins": "near_duplicates",
    "diversity_least": "diversity_min",
    "repeated_4": "rep_4",
    "in_words": "summary",
}
