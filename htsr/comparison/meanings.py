"""What the kinds of change mean, one plain sentence each, for ``htsr explain`` and the documentation."""

from collections.abc import Mapping

# The values of ``Comparison.kind``.
KIND_MEANINGS: Mapping[str, str] = {
    "identical": "All matrices are equal in A and B, value by value.",
    "rounded": "A and B differ by no more than rounding to a floating-point type, such as bfloat16.",
    "quantised": "The values of one model lie on a grid and keep the order that they have in the other one.",
    "merged-lora": "Each changed matrix changed by exactly a low rank, as when a low-rank adapter is merged.",
    "direction-removed": "At least two matrices lost the same direction, or the same few, of their outputs or inputs.",
    "pruned": "One model is the other one with some values set to zero.",
    "few-layers": "At most half of the matrices changed, and in none of the ways that have a name of their own.",
    "fine-tuned": "Most matrices changed, by 20 % at most, all together and by norm.",
    "trained-on": "Most matrices changed, by 30 % or more, and A and B still correlate.",
    "interpolated": "B lies on the line between A and the other parent that you gave.",
    "unrelated": "The values of A and B correlate no more than by chance: these are two models, not two versions of one.",
    "undecided": "No kind fits, or more than one; the evidence says what was seen, for example noise or another order.",
}

# The values of the column ``change``.
CHANGE_MEANINGS: Mapping[str, str] = {
    "equal": "The matrix is equal in A and B, value by value.",
    "rounding": "Rounding of the stored weights can account for most of the change, or for all of it.",
    "pruned": "One matrix is the other one with some values set to zero.",
    "rescaled": "B is A times a factor, or times a factor for each row or each column.",
    "quantised": "The values of one matrix lie on a grid and keep the order that they have in the other one.",
    "truncated": "One matrix is the other one without its small singular values, as a compression by SVD leaves it.",
    "direction-removed": "B is A with one direction, or a few, projected out of its outputs or its inputs.",
    "low-rank": "The change has exactly a low rank, at most a quarter of the possible one, as a merged LoRA has.",
    "reordered": "B has the rows or columns of A in another order, or the same singular values or directions with other values.",
    "replaced": "The values of A and B do not correlate: the matrix was initialised or trained anew.",
    "partial": "At most half of the rows, or of the columns, changed, and the others are equal.",
    "noise": "The spectrum of the change is that of random numbers, which weak training and added noise both leave.",
}
