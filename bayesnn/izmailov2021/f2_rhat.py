"""F2: HMC chains mix well in function space, and less well in weight space.

Run: the reference with jittered trajectories, and the same with trajectories of one fixed length, as in the paper, which leave
directions unmixed even on a Gaussian.

Compared: the share of test predictions and of weights whose R-hat is above 1.1, by the classic statistic of Gelman and Rubin, as
in the paper's figure, and by the rank-normalised split one; weights also after their symmetries are aligned. Shares are held
against what stationary chains as slow as these show.

Decides, for jittered and for fixed trajectories apart: supported if fewer than 5 % of the predictions, and a larger share of the
weights, exceed 1.1 by more than stationary chains do; contradicted if the weights do not exceed it, or the predictions do.
"""
