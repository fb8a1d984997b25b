"""What the numbers mean, in five plain sentences each, for ``htsr explain``, the documentation and the pages.

Each says what the number is, what is good, where the bounds come from, when not to trust it, and what to do. A name is a column
of a table, a kind of finding, or a term.
"""

from collections.abc import Mapping

EXPLANATIONS: Mapping[str, str] = {
    "alpha": (
        "alpha is the exponent of the power law that fits the largest eigenvalues of a weight matrix: the smaller it is, "
        "the heavier the tail, and the more of the matrix is a few strong directions. In networks that generalise well, "
        "most layers lie between 2 and 6, and the mean over layers falls as models of one family get better. The bounds 2 "
        "and 6 are WeightWatcher's: below 2 the mean of the fitted distribution is infinite, above 6 the tail can hardly "
        "be told from one without a power law. Do not trust an alpha whose layer reads as noise, whose tail holds fewer "
        "than 30 values, or whose interval covers both sides of the bound that you care about. Read it beside null_alpha, "
        "the alpha that noise of the same shape has, and ask for an interval with bootstrap=500."
    ),
    "xmin": (
        "xmin is the eigenvalue at which the fitted tail starts; smaller eigenvalues play no part in alpha. There is no "
        "good or bad xmin, but a good fit has many values above it. htsr takes the xmin whose tail lies closest to a "
        "power law, that is with the smallest D, as Clauset, Shalizi and Newman do. Do not trust alpha where D is nearly "
        'the same over a wide range of xmin while alpha is not. Look at a["layer"].plot("xmin"), which draws D and alpha '
        "for every candidate."
    ),
    "D": (
        "D is the Kolmogorov-Smirnov distance between the tail and the power law fitted to it: the largest gap between "
        "their cumulative distributions. Smaller is better, and 0.05 or less is a close fit. D falls with the number of "
        "values alone, so compare it only between tails of like size, or with null_D. A small D does not prove a power "
        "law, least of all with few values. Ask for goodness_of_fit with bootstrap=500 if it matters."
    ),
    "sigma": (
        "sigma is the standard error of alpha for the xmin that was chosen: (alpha - 1) / sqrt(number of values in the "
        "tail). Smaller is better. Two sigma each way would be a 95 % interval if xmin were known in advance. It was not, "
        "so the true error is larger. bootstrap=500 gives alpha_low and alpha_high, which count the choice of xmin."
    ),
    "num_pl_spikes": (
        'num_pl_spikes, "tail" in the printed table, is the number of eigenvalues that the power law was fitted to. More '
        "is better; 100 are comfortable. With fewer than 30 the standard error is almost a fifth of alpha - 1 or more, "
        "and the 95 % interval covers the truth in only about 70 % of cases. It says nothing about the quality of the "
        "layer. Read the alpha of such a layer as a range, and do not rank layers by it."
    ),
    "goodness_of_fit": (
        "goodness_of_fit is Clauset's p-value: how often data that do follow a power law fit it no better than this tail "
        "does. A p of 0.1 or less speaks against a power law; anything larger does not. The bound of 0.1 is Clauset's. A "
        "large p is no proof, since short tails pass nearly always. alternatives=True compares the tail with a lognormal, "
        "an exponential and two more."
    ),
    "null_alpha": (
        "null_alpha is the median alpha that Gaussian noise of the same shape has, and null_alpha_low to null_alpha_high "
        "holds 90 % of such noise. An alpha below that band is evidence of structure; one inside it is not. Noise has an "
        "alpha because a power law can be fitted to anything, and small matrices of noise often lie between 2 and 6. The "
        "band is that of Gaussian entries of one scale, so sparse or heavy-tailed entries and scaled rows leave it without "
        "any learned structure. Where alpha lies in the band, or explained_by names scales or entries, let null_p_value and "
        "the phase decide."
    ),
    "alpha_excess": (
        "alpha_excess is how far alpha lies from the alpha that Gaussian noise of the same shape has, in units of that "
        "noise's spread. Far below -1.6 the tail is heavier than nearly all such noise; between -1.6 and 1.6 alpha says "
        "nothing. The spread below the median and that above it differ, and each side has its own. It says how sure a heavy "
        "tail is, not how heavy it is, and large matrices are surer: over the layers of MiniLM, null_alpha explains 0.1 of "
        "its variance and nothing of alpha's. Look at it before alpha, and rank layers of one shape by either."
    ),
    "null_p_value": (
        "null_p_value says how rarely noise looks as structured as this layer, where noise may have any scale for each row "
        "and column, and entries of any law with any share of zeros. htsr divides the scales out, bounds the entries, and "
        "asks whether the largest eigenvalue, the alikeness of columns and of neighbours are those of independent numbers; "
        "null= chooses what noise keeps. A value below 0.01 means structure, and noise of every such kind lies below "
        "0.05 in about 5 % of cases; it stops at 3e-6, printed as < 3e-6. It says nothing about how heavy a tail is: "
        "gaussian_p_value does. With hundreds of layers some fall below 0.01 by chance, so look at the smallest ones, not "
        "at the count."
    ),
    "gaussian_p_value": (
        "gaussian_p_value says how rarely Gaussian noise of the same shape looks as heavy-tailed as this layer. It combines "
        "three one-sided tests, of alpha, of D and of the stable rank: three times the smallest of their shares "
        "(Bonferroni). A small value, say below 0.01, means that the spectrum is no Gaussian noise's, by structure or by "
        "scales and entries alone; explained_by says which. It is extrapolated below one in a hundred and never below 3e-6, "
        "which is printed as < 3e-6. A large value together with a small null_p_value is a layer with structure but "
        "without a heavy tail."
    ),
    "explained_by": (
        "explained_by says what suffices to explain why a layer differs from Gaussian noise: row and column scales, "
        "entries (their law), zero pattern, or scales and entries. Such a layer is noise, and its phase is random-like. "
        "Structure beyond scales and entries means that none of them suffices, as in every trained layer that was looked "
        "at. It is empty where the spectrum is that of Gaussian noise, where the phase is another, and where chance may be "
        "all there is. A shuffled or freshly initialised layer with folded gains, a random mask or heavy entries gets an "
        "explanation; a mask of blocks and rows that depend on each other do not, and phase_evidence names the neighbours "
        "that are alike."
    ),
    "phase": (
        "phase names the shape of a spectrum after Martin and Mahoney: random-like, bleeding-out, bulk+spikes, "
        "bulk-decay, heavy-tailed or rank-collapse. Large, well-trained layers are usually bulk-decay or heavy-tailed, "
        "small ones bulk+spikes; random-like means that training left no trace beyond scales and entries. The papers show "
        "the phases in plots; the bounds are htsr's, and phase_evidence gives the numbers that decided. With fewer than 32 "
        "eigenvalues or a side below 16 the phase is undecided, and near a bound a second training may land on the other "
        "side. Look at random-like and rank-collapse first, and read the others as descriptions."
    ),
    "stable_rank": (
        "stable_rank is the sum of the eigenvalues over the largest one: how many equally strong directions the matrix is "
        "worth. It lies between 1 and the smaller side, and training lowers it. There is no good value as such; compare "
        "it with null_stable_rank and between layers of one shape. It is exact and varies little between trainings, where "
        "alpha varies much. A sudden fall during training is a direction that has taken over."
    ),
    "num_spikes": (
        "num_spikes is the number of eigenvalues above the edge of the noise bulk: directions that noise cannot have "
        "made. A trained layer has spikes; a layer without any is hard to tell from noise. The edge is the 99 % "
        "Tracy-Widom quantile of the Marchenko-Pastur law fitted to the bulk, so pure noise shows one spike in a hundred "
        "matrices. Where most eigenvalues stand out there is no bulk to measure from, and the cell is empty. "
        'a["layer"].plot("bulk") shows bulk, edge and spikes.'
    ),
    "bulk_p_value": (
        "bulk_p_value says whether the lower part of the spectrum is the Marchenko-Pastur bulk of noise. A value above "
        "0.005 passes for noise; a smaller one means correlations even in the bulk. Most layers of well-trained models "
        "have a tiny one. It assumes entries of one scale, so a pruned or per-channel scaled matrix fails it without "
        "having learned anything. It is never below 1e-6, which is printed as < 1e-6."
    ),
    "hard_rank": (
        "hard_rank is the number of eigenvalues that the precision of the stored weight tells from zero. It should equal "
        "num_evals. One or two lost eigenvalues are chance in a square matrix; 1 % or more are a rank collapse. Weights "
        "stored in 8 bits hide small eigenvalues in their rounding. A merged LoRA or a factorised layer has a low rank by "
        "design."
    ),
    "num_traps": (
        "num_traps counts correlation traps: eigenvalues that stay above the noise edge after all entries were shuffled. "
        "A shuffle destroys every correlation, so zero is good. What survives comes from single huge entries or from a "
        "mean that is not zero, and trap_elements names them. One shuffle in a hundred shows a trap by chance. "
        "WeightWatcher's authors see traps after trainings with too large a learning rate."
    ),
    "alternative": (
        "alternative names the distribution that fits the tail significantly better than a power law: a lognormal, an "
        "exponential, a stretched exponential or a truncated power law. An empty cell means that none is better, which is "
        "good for alpha. The test is Vuong's, and alternative_p_value is its p-value. A truncated power law has one "
        "parameter more and wins easily in long tails. If an exponential wins, alpha describes a tail that is not heavy."
    ),
    "warning": (
        "warning is over-trained for an alpha below 2, under-trained for one above 6, and noise for a layer that cannot "
        "be told from noise. An empty cell means that alpha lies between the bounds, or that noise of the same shape is "
        "as heavy-tailed, so that alpha says nothing. The words and the bounds are WeightWatcher's, but for noise, which "
        "WeightWatcher calls under-trained. They are hints about one number, not measurements of training: a short tail "
        "crosses a bound by chance. Read the findings of the layer, which give the interval and what noise would give."
    ),
    "noise": (
        "A layer reads as noise if a Marchenko-Pastur law, the spectrum of random matrices, fits its bulk and no "
        "eigenvalue lies above the edge. A trained layer should not: as far as its spectrum shows, this one could be "
        "fresh from its initialisation. It may never have received gradients, be unused at inference, or have been reset; "
        "the unused pooler of a sentence encoder is a known case. Small matrices and weak training leave traces that the "
        "spectrum cannot show. Check whether the model uses the layer, and compare it with its initial weights if you "
        "have them."
    ),
    "rank-collapse": (
        "A rank collapse means that at least 1 % of the eigenvalues are zero or as good as zero. A healthy dense layer "
        "has full rank. The bound of 1 %, and at least two eigenvalues, is htsr's, since chance makes one vanish. A low "
        "rank can be intended: a merged low-rank factor, a pruned layer, an embedding with unused rows. If it is not, "
        "look for dead units and for a weight decay that is too strong."
    ),
    "unusable": (
        "The weight could not be read, or it holds NaN or infinite entries. No number of this layer exists, and none was "
        "invented. The reason says how many entries are not finite, or what is wrong with the file. The other layers are "
        "analysed as usual. A model with such a weight gives NaN for every input that reaches it."
    ),
    "not-compared": (
        "The two versions of this layer could not be compared, and the reason says why. Most often one of them holds NaN "
        "or infinite entries. No distance was invented for it. The other layers are compared as usual. Look at the reason "
        "first, and at the source that it names."
    ),
    "under-trained": (
        "An alpha above 6 means that the tail is hardly heavy: the layer has few strong directions, as near its "
        "initialisation. Most layers of good models lie below 6. The bound is WeightWatcher's, and the word is a reading, "
        "not a measurement. Some value and key projections of MiniLM, a good model, lie there, and a short tail lands "
        "there by chance. Compare with layers of the same role at other depths, and with null_alpha."
    ),
    "over-trained": (
        "An alpha below 2 means a very heavy tail: a few directions carry most of the matrix. Most layers of good models "
        "lie above 2. The bound is WeightWatcher's: below 2 the fitted law has no finite mean, and its authors see "
        "overfitting there. Embeddings lie there without harm, since frequent tokens have long rows. Look at stable_rank "
        "and at traps (randomize=True) before you change the training."
    ),
    "alpha-of-noise": (
        "Noise of the same shape is as heavy-tailed as this layer: its alpha is no larger, and neither D nor the stable "
        "rank tells the layer from noise. Its alpha is no evidence of structure, and no sign of training or of a lack of "
        "it, whatever its value. The layer may still have structure that other numbers show: spikes, a bulk that is not "
        "noise. Small matrices are affected most, since their noise has a wide band. Judge such a layer by num_spikes, "
        "bulk_p_value and the phase."
    ),
    "no-power-law": (
        "A power law does not describe this tail: the goodness of fit is 0.1 or less, or another distribution fits it "
        "better. alpha is then a summary of the tail's slope, not an exponent. The bound of 0.1 is Clauset's. In long "
        "tails small deviations become significant that change alpha little. Look at the ESD and at the alternatives "
        "before you quote alpha."
    ),
    "heavy-entries": (
        "The entries of the matrix are far from normal: their excess kurtosis is above 6. Entries of most dense layers "
        "are close to normal. The alpha, the bulk and the spikes are compared with those of Gaussian noise, so large "
        "entries move them. Sparse, pruned and outlier-rich layers are affected. null_p_value and explained_by allow for "
        "such entries; read these."
    ),
    "short-tail": (
        "The tail that alpha was fitted to holds fewer than 30 eigenvalues. Longer is better; 100 are comfortable. With "
        "30 values the 95 % interval covers the truth in about 70 % of cases. The layer itself may be perfectly healthy. "
        "Read its alpha as a range, and use stable_rank to compare it with others."
    ),
    "trap": (
        "A correlation trap is an eigenvalue that survives when all entries are shuffled. A healthy layer has none. It "
        "comes from single huge entries or from a mean that is not zero, not from correlations. One shuffle in a hundred "
        "shows one by chance. trap_elements and trap_mean name the cause; look there first."
    ),
    "not-fitted": (
        "There is no power-law fit for this layer, and the reason says why. htsr refuses a fit rather than inventing one: "
        "too few values, or all of them equal. A fit needs 8 distinct eigenvalues. The other numbers of the layer are "
        "valid. The layer is left out of every mean of alpha."
    ),
    "fixed-basis": (
        "The rows of this matrix are a basis that somebody wrote down, such as the sines and cosines of a Fourier "
        "transform. It was not trained, so nothing about it is good or bad. htsr recognises it by its values. Its alpha "
        "and its phase would say nothing about a training. Leave it out with skip= if it disturbs a table."
    ),
    "severity": (
        "severity is that of the worst finding of a layer: problem, caution, note, or empty. A problem means that the "
        "weight itself is suspect: noise, lost rank, entries that are not finite. A caution means that its alpha should "
        "not be read like that of other layers, and a note is good to know. It ranks what deserves a look; it does not "
        "grade a model. --fail-on \"severity == 'problem'\" stops a pipeline on it."
    ),
    "ESD": (
        "The ESD, the empirical spectral density, is the distribution of the eigenvalues of W^T W, the squared singular "
        "values of a weight matrix. At initialisation it is the Marchenko-Pastur bulk of noise; training pulls a tail out "
        "of it. On log-log axes a power-law tail is a straight line with slope -alpha. htsr divides by nothing, so "
        'eigenvalues grow with the size of the matrix. a.plot("esd") draws all of them, and a["layer"].plot() one.'
    ),
    "relative_change": (
        "relative_change is the Frobenius norm of the change B - A over that of A. Fine-tuning usually changes a layer by "
        "a few per cent or less; two unrelated matrices of one norm differ by 141 %. It has no bound that is good or bad. "
        "Rounding alone makes a change, and the column rounding says how much of it. Read it with the overlaps, which say "
        "whether the directions stayed."
    ),
    "overlap_out": (
        "overlap_out is the mean squared cosine of the angles between the leading output directions of A and B, "
        "overlap_in that of the input directions. 1 means the same subspace; k / out, the value for random ones, means "
        "nothing in common. Fine-tuning usually keeps it close to 1. Where singular values lie close together directions "
        "mix by themselves, so a low overlap can mean little. Compare it with relative_change: a small change that turns "
        "the leading directions is worth a look."
    ),
    "cka": (
        "cka is the linear centred kernel alignment of the rows of A and B. 1 means that they agree up to scale and "
        "rotation, and unrelated matrices lie near 0 or, if they are flat, above it. Fine-tuning usually keeps it close "
        "to 1. A few large directions dominate it, so it can hide changes of the small ones. Read it together with the "
        "overlaps."
    ),
    "kind": (
        "kind names what was done between two models, judged from the changes of all layers: identical, rounded, "
        "quantised, merged-lora, direction-removed, pruned, few-layers, fine-tuned, trained-on, interpolated, unrelated "
        "or undecided. None of them is good or bad; it is bad if you expected another. Exact kinds come first, since only "
        "they leave a trace that chance cannot: equal bits, a grid, a low rank, a mask; the size and the directions of "
        "the change decide the rest. Where two kinds fit, or none, it is undecided, and kind_evidence gives the numbers "
        "that decided. Look at the column change to see which layers spoke for it."
    ),
    "change": (
        "change names what was done to one layer: equal, rounding, quantised, pruned, truncated, low-rank, "
        "direction-removed, rescaled, reordered, replaced, partial or noise. An empty cell is an ordinary change, as training "
        "makes it. noise means "
        "that the spectrum of the change is that of random numbers, which weak training and added noise both leave. A "
        "layer alone says less than the model: a low rank in one layer may be chance, in forty it is a merged adapter. "
        "change_evidence gives the numbers, and the kind of the comparison judges all layers together."
    ),
    "step_vs_promise": (
        "step_vs_promise is the size of the step that an optimizer really made to a matrix, divided by what its rule promises "
        "for this learning rate and this shape. About 1 is healthy; torch.optim.Muon gives 0.9 to 1.01, since its "
        "Newton-Schulz steps come close to their largest value, 1.2025, but need not reach it. The promise is a number for "
        "Muon, follows from the momentum for HTMuon and from the optimizer's state for Adam, and SGD promises nothing. Do not "
        "read it as a judgement on the learning rate: it says that the optimizer did what it was told. Where it is far from 1, "
        "look at verdict and verdict_evidence, and at homogeneity, which tells a clip from an epsilon."
    ),
}
