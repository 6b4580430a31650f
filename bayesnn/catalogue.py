"""What is built in, one line each. Imports nothing, so that listing it takes no time."""

MODELS: dict[str, str] = {
    "mlp": "fully connected network of any depth; tanh, relu, silu or gelu; no hidden layer is a linear model",
    "lenet": "convolutions and pooling, then fully connected layers, for images; the published one has 6-16-120-84",
    "resnet": "residual network with filter response normalisation and SiLU, for images; ResNet-20 has 274,042 parameters",
    "cnn-lstm": "embedding, convolution and LSTM for token ids; the published one has 2.7 million parameters",
}

PRIORS: dict[str, str] = {
    "gaussian": "independent Gaussians around zero; one scale, one by layer or pattern, or scaled by fan-in",
    "family": "logistic, Laplace, Student-t, a mixture of Gaussians or a Gaussian, all at the same standard deviation",
    "empirical-covariance": "first layer with the covariance of the inputs (EmpCov); Gaussians for all else",
    "distribution": "any scalar numpyro distribution on the real line (StudentT, Laplace, Logistic ...), by its name",
}

LIKELIHOODS: dict[str, str] = {
    "categorical": "class probabilities from logits",
    "bernoulli": "probability of the second of two classes from one logit",
    "augmented": "categorical, its log averaged over changed copies of each image",
    "gaussian": "Gaussian noise of one scale, fixed or learned with the weights",
    "heteroscedastic": "Gaussian noise whose scale is the network's second output",
    "poisson": "counts, the logarithm of whose rate is the network's output",
}

DATASETS: dict[str, str] = {
    "digits": "8x8 handwritten digits, 1,797 x 64, 10 classes (scikit-learn)",
    "digits_images": "the same as images, 8 x 8 x 1, intensities 0 to 1 (scikit-learn)",
    "breast_cancer": "tumour cell nuclei, 569 x 30, 2 classes (scikit-learn)",
    "wine": "chemical analysis of wines, 178 x 13, 3 classes (scikit-learn)",
    "diabetes": "disease progression, 442 x 10, regression (scikit-learn)",
    "mnist": "handwritten digits, 60,000 + 10,000 of 28 x 28 x 1, 10 classes",
    "fashion_mnist": "articles of clothing, 60,000 + 10,000 of 28 x 28 x 1, 10 classes",
    "cifar10": "photographs, 50,000 + 10,000 of 32 x 32 x 3, 10 classes",
    "cifar100": "photographs, 50,000 + 10,000 of 32 x 32 x 3, 100 classes",
    "svhn": "house numbers, 73,257 + 26,032 of 32 x 32 x 3, 10 classes",
    "imdb": "film reviews, 25,000 + 25,000 of 100 tokens, vocabulary 20,000, 2 classes",
    "uci_boston": "house prices, 506 x 13, regression, 20 splits; has a race-derived column, for published comparisons only",
    "uci_concrete": "compressive strength, 1,030 x 8, regression, 20 splits",
    "uci_energy": "heating load, 768 x 8, regression, 20 splits",
    "uci_kin8nm": "robot arm kinematics, 8,192 x 8, regression, 20 splits",
    "uci_naval": "compressor decay, 11,934 x 16, regression, 20 splits",
    "uci_power": "power plant output, 9,568 x 4, regression, 20 splits",
    "uci_protein": "tertiary structure, 45,730 x 9, regression, 5 splits",
    "uci_wine_red": "wine quality, 1,599 x 11, regression, 20 splits",
    "uci_yacht": "yacht hydrodynamics, 308 x 6, regression, 20 splits",
    "uci_elevators": "aircraft control, 16,599 x 18, regression, 10 folds",
    "uci_pol": "telecommunications, 15,000 x 26, regression, 10 folds",
    "uci_skillcraft": "strategy game skill, 3,338 x 19, regression, 10 folds",
    "uci_keggdirected": "metabolic networks, 48,827 x 20, regression, 10 folds",
    "uci_airfoil": "airfoil self-noise, 1,503 x 5, regression, seeded 90/10 splits",
    "uci_bikesharing": "hourly bike rentals, 17,379 x 12, regression, seeded 90/10 splits",
    "uci_ionosphere": "radar returns, 351 x 33, 2 classes, seeded 90/10 splits",
}
