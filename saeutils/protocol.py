"""The audit: 32 switches between the protocol as released and as corrected, and the decision rules.

A protocol is written ``released``, ``corrected``, ``released+A19`` (released, with A19 corrected)
or ``corrected-A19`` (corrected, with A19 as released); several entries may follow. A switch acts in
the stage that it concerns. The decision rules below were fixed before the first full run.

Source: the released code of the paper (commit 828fcaf) and the outputs stored with it; the ids are
ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One flaw or fragile choice of the release.

    Attributes
    ----------
    id, name, title
        ``"A01"``, a short name usable as an identifier, and one for tables and figures.
    room, stage
        Module of `saeutils` and number of the notebook in which the switch acts.
    released, corrected
        The two settings, as short texts for tables.
    sentence
        What the released setting does to the numbers, in one sentence.
    """

    id: str
    name: str
    title: str
    room: str
    stage: str
    released: str
    corrected: str
    sentence: str


ENTRIES: tuple[Entry, ...] = (
    Entry("A01", "insample_r2", "R² on the clips fitted on",
          "disentanglement", "05", "R2 on the clips fitted on",
          "R2 on unseen singers",
          "With more codes than clips even noise codes reach a positive R2."),
    Entry("A02", "completeness_width", "completeness by width",
          "disentanglement", "05", "divide by log(number of codes)",
          "effective number of codes exp(H)",
          "The same weights score higher the more codes there are."),
    Entry("A03", "empty_column", "empty column scores 1",
          "disentanglement", "05", "all-zero weights score 1",
          "undefined, counted",
          "An attribute that no code predicts counts as perfectly complete."),
    Entry("A04", "top10_selection", "ten best, chosen in each cell",
          "disentanglement", "05", "ten best attributes of each cell",
          "one common attribute set",
          "Cells are compared on different attributes, chosen by the score then reported."),
    Entry("A05", "d_average", "mean instead of sum",
          "disentanglement", "05", "mean of importance times score",
          "sum of importance times score",
          "Average disentanglement shrinks with the number of codes; identity over 4 scores .25."),
    Entry("A06", "train_mode_encoder", "encoder in train mode",
          "activations", "02", "encoder in train mode",
          "encoder in eval mode",
          "Dropout and masking act on training states and not on test states."),
    Entry("A07", "wavlm_class", "WavLM in another class",
          "encoders", "02", "WavLM weights in a wav2vec 2.0 class",
          "WavLM class, strict loading",
          "The gated position bias is dropped without an error."),
    Entry("A08", "mert_rate", "16 kHz into a 24 kHz model",
          "encoders", "02", "16 kHz audio into a 24 kHz model",
          "the encoder's own rate, checked",
          "Pitch and formants reach the encoder shifted by a factor of 1.5."),
    Entry("A09", "hubert_l3_99", "99 % probe set to 75 %",
          "probing", "04", "99 % probe configured as 75 %",
          "the right sparsity",
          "One cell of the published table holds another cell's number."),
    Entry("A10", "padding_in_mean", "padding in the mean",
          "activations", "02", "padding and special tokens in the mean",
          "masked mean",
          "Pooled states depend on clip length."),
    Entry("A11", "crop_mismatch", "5 s crop against whole file",
          "activations", "02", "5 s crops in training, whole files in maps",
          "the same windows everywhere",
          "SAEs are evaluated on inputs unlike those they were trained on."),
    Entry("A12", "last_batch_validation", "validation by the last batch",
          "sae_training", "03", "validation loss of the last batch",
          "whole validation set, each SAE its own",
          "Checkpoints are picked by a loss over 1 to 16 clips and all SAEs together."),
    Entry("A13", "split_order", "split by file listing",
          "datasets", "01", "80/20 over clips, unsorted listing",
          "sorted, grouped by singer",
          "Validation shares singers with training and depends on the file system."),
    Entry("A14", "vibrado_rows", "rows overwritten by a repair",
          "datasets", "01", "mending a label overwrites rows",
          "rename only",
          "Clips are dropped by a label repair, test clips among them."),
    Entry("A15", "test_layer_choice", "layer chosen on test",
          "probing", "04", "layers chosen on test accuracy",
          "layers chosen on validation singers",
          "The reported layer is the luckiest one on the reported clips."),
    Entry("A16", "one_seed", "one seed, no interval",
          "probing", "04", "one seed, no interval",
          "several seeds, t interval over singers",
          "Differences of a few points cannot be told from chance."),
    Entry("A17", "alpha_fixed", "one Lasso penalty for all",
          "disentanglement", "05", "Lasso penalty .1 everywhere",
          "penalty by inner grouped cross-validation",
          "One penalty suits neither every width nor every sparsity."),
    Entry("A18", "raw_mse", "raw error across layers",
          "sae_metrics", "03", "mean squared error",
          "fraction of variance unexplained",
          "Errors of encoders of different scale are compared as if they were quality."),
    Entry("A19", "no_centring", "no centring, dead latents",
          "sae", "03", "no decoder bias, no centring, no dead-latent control",
          "bias, centring, unit-norm decoder, auxiliary loss",
          "Latents are spent on the common offset, and dead ones stay dead."),
    Entry("A20", "k_truncation", "k truncated, L0 assumed",
          "sae", "03", "k truncated, ReLU before TopK, L0 assumed",
          "k rounded, L0 measured",
          "Fewer latents fire than the table says."),
    Entry("A21", "group_labels", "tilt counted as pitch",
          "attributes", "05", "logRelF0-H1-H2 and -A3 counted as pitch",
          "counted as voice quality",
          "Spectral-tilt attributes are counted among the pitch attributes."),
    Entry("A22", "heavy_tails", "heavy tails, rare codes",
          "disentanglement", "05", "attributes as measured, all codes",
          "rank-normalised; codes on < 10 clips or < 3 singers left out",
          "One rare code fits one outlier clip and looks like a complete attribute."),
    Entry("A23", "entropy_axis", "entropy axis",
          "disentanglement", "05", "entropy of 10 equal-width bins",
          "shown beside the noise null",
          "The axis measures tails, and noise codes draw the same slope."),
    Entry("A24", "no_null", "no untrained dictionary",
          "disentanglement", "05", "SAE against raw only",
          "untrained dictionary of equal width and k beside",
          "Width and sparsity alone move the numbers in the claimed direction."),
    Entry("A25", "probe_conditioning", "probe conditioning",
          "probing", "04", "one Adam run without scaling",
          "logistic regression to convergence; scale (for raw states whitening too) and penalty "
          "chosen",
          "Accuracy measures how well the states are conditioned for one optimiser."),
    Entry("A26", "accuracy_imbalance", "unbalanced accuracy",
          "probing", "04", "plain accuracy",
          "balanced accuracy, chance and majority beside",
          "Frequent techniques decide the number."),
    Entry("A27", "exercise_confound", "exercise gives it away",
          "datasets", "04", "all exercises pooled",
          "within exercise; crossed set",
          "Exercise and melody give the technique away."),
    Entry("A28", "attribute_validity", "attributes by their names",
          "attributes", "05", "attributes taken at their names",
          "checked against known causes",
          "Several attributes answer to something else than they are called."),
    Entry("A29", "attribute_scope", "attributes at another rate",
          "attributes", "01", "attributes at 44.1 kHz, states at 16 kHz",
          "the same window and rate",
          "Attributes describe sound that the encoder never received."),
    Entry("A30", "level_blind", "level counted as encoded",
          "attributes", "05", "loudness counted as encoded",
          "level checked by intervention, group reported apart",
          "Input normalisation removes level, so loudness can only be inferred."),
    Entry("A31", "redundancy", "near-copies counted singly",
          "disentanglement", "05", "88 attributes counted singly",
          "clusters at |r| > .7, counts against base rates",
          "Groups of near-copies fill the top ten."),
    Entry("A32", "latents_over_clips", "as many latents as clips",
          "sae_metrics", "03", "2,048 latents on about 970 clips",
          "error of trained rows beside unseen singers; PCA bound by k",
          "More latents than clips can memorise the training set."),
)

BY_ID = {entry.id: entry for entry in ENTRIES}

# Decision rules, fixed before the first full run (see `decision_rules`). The R2 floor was worded
# otherwise: "in both", that is in each of the two representations compared.
MARGIN = 0.03
PRIMARY_SPARSITY = 95
R2_FLOOR = 0.2
K_VALUES = (1, 2, 5, 10, 20, 50)
K_CENSORED = 50
K90_SHARE = 0.9
CLIPS_PER_CODE, FEWEST_K = 5, 3  # guard of small tables: nothing changes from 250 clips on
SPECIFICITY_FLOOR = 0.5
PLACEBO_QUANTILE = 0.95
CLUSTER_CUT = 0.7
MIN_CLIPS, MIN_SINGERS = 10, 3


@dataclass(frozen=True)
class Protocol:
    """A setting of all switches: the ids in ``corrected`` are corrected, the rest as released.

    Examples
    --------
    >>> CORRECTED.corrects("A01"), RELEASED.corrects("insample_r2")
    (True, False)
    """

    name: str
    corrected: frozenset[str]

    def corrects(self, entry: str) -> bool:
        """True if the entry (id or name) stands at "corrected"; unknown entries are refused."""
        return find_entry(entry).id in self.corrected

    def flip(self, entry: str) -> Protocol:
        """The same protocol with one entry turned the other way."""
        base = re.match(r"\w+", self.name).group()
        return _named(self.corrected ^ {find_entry(entry).id}, base)


RELEASED = Protocol("released", frozenset())
CORRECTED = Protocol("corrected", frozenset(BY_ID))
BASES = {"released": RELEASED, "corrected": CORRECTED}


def find_entry(entry: str) -> Entry:
    """The audit entry of an id or a name.

    Raises
    ------
    ValueError
        No such entry; names what there is.

    Examples
    --------
    >>> find_entry("no_centring").id
    'A19'
    """
    for candidate in ENTRIES:
        if entry in (candidate.id, candidate.name):
            return candidate
    raise ValueError(
        f"unknown audit entry {entry!r}: there are A01 to A{len(ENTRIES):02d}, "
        "or their names such as 'insample_r2'"
    )


def parse_protocol(text: str) -> Protocol:
    """Read ``released``, ``corrected``, ``released+A19+A03`` or ``corrected-A19``.

    Parameters
    ----------
    text
        A base, then entries (ids or names) that differ from it: ``+`` corrects an entry of
        ``released``, ``-`` undoes one of ``corrected``. Order does not matter.

    Raises
    ------
    ValueError
        Unknown base or entry, the wrong sign for the base, or an entry named twice.

    Examples
    --------
    >>> parse_protocol("corrected-A19").corrects("no_centring")
    False
    >>> parse_protocol("released+insample_r2").name
    'released+A01'
    """
    match = re.fullmatch(r"(\w+?)((?:[+-]\w+)*)", text.strip())
    base = BASES.get(match.group(1)) if match else None
    if base is None:
        raise ValueError(
            f"unknown protocol {text!r}: write released, corrected, released+A19 or corrected-A19"
        )
    sign = "+" if base is RELEASED else "-"
    flipped: set[str] = set()
    for mark, entry in re.findall(r"([+-])(\w+)", match.group(2)):
        found = find_entry(entry).id
        if mark != sign:
            raise ValueError(
                f"protocol {text!r}: {base.name!r} takes {sign!r}, as in {base.name}{sign}{found}"
            )
        if found in flipped:
            raise ValueError(f"protocol {text!r} names {found} twice")
        flipped.add(found)
    return _named(base.corrected ^ flipped, base.name)


def entries_table():
    """The audit as a table, one row per entry (columns as in `Entry`)."""
    import pandas as pd

    return pd.DataFrame(ENTRIES)


def decision_rules():
    """The rules fixed before the first full run, as a table (columns rule, value, meaning).

    The values are those of then. The meaning of the R2 floor says what `saeutils.claims.readable`
    and `saeutils.map_cells.common_attributes` do, and how it was first worded.
    """
    import pandas as pd

    rows = [
        ("margin", MARGIN, "claim 1: largest loss of balanced accuracy that counts as none"),
        ("primary sparsity", PRIMARY_SPARSITY, "percent; the one cell on which each claim rests"),
        ("layer", "validation", "balanced accuracy of the raw probe on validation singers"),
        ("R2 floor", R2_FLOOR, "claim 2: attributes that at least one representation predicts so "
         "well within the training singers; corrected maps: those that raw states do. First "
         "worded: in both that are compared"),
        ("k90 share", K90_SHARE, f"share of the common ceiling; censored at k = {K_CENSORED}"),
        ("clips per code", CLIPS_PER_CODE, "claim 2: k is at most training clips / this; too few "
         f"clips to decide where fewer than {FEWEST_K} values of k are left"),
        ("specificity", SPECIFICITY_FLOOR, "claim 2b: share of a response owed to one factor"),
        ("placebo quantile", PLACEBO_QUANTILE, "claim 2b: a response must exceed it"),
        ("cluster cut", CLUSTER_CUT, "attributes with |r| above it count once"),
        ("live code", f"{MIN_CLIPS} clips, {MIN_SINGERS} singers", "fewer: left out of maps"),
    ]
    return pd.DataFrame(rows, columns=["rule", "value", "meaning"])


def _named(corrected: frozenset[str], base: str) -> Protocol:
    own = BASES[base].corrected
    sign = "+" if base == "released" else "-"
    return Protocol(base + "".join(f"{sign}{item}" for item in sorted(own ^ corrected)), corrected)
