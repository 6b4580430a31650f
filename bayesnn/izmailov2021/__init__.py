"""What Are Bayesian Neural Network Posteriors Really Like? (Izmailov et al. 2021), claim by claim, and what its critics answer.

One module a claim, its protocol in the docstring. C1 to C6 are the paper's claims, F2 its figure of R-hat, B1 to B4 the critique.
"""
