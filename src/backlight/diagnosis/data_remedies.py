"""The rows: their scales, labels and split."""

from backlight.diagnosis.remedy import Remedy

STANDARDIZE = Remedy(
    "data.standardize=true",
    "Features with mean 0 and deviation 1 let one learning rate fit all weights.",
    "LeCun et al. 1998, Efficient BackProp, section 4.3",
)

BY_RANK = Remedy(
    "data.standardize=quantile",
    "Ranks spread the rows evenly, however far a few of them lie from all others.",
    "Gorishniy et al. 2021, arXiv:2106.11959",
)

LEAVE_EMPTY = Remedy(
    "",
    "Leave the cell empty where a number such as -999 stands for a missing one: it is replaced by the median, and marked.",
    "Little & Rubin 2019, Statistical Analysis with Missing Data",
)

MORE_RARE_ROWS = Remedy(
    "",
    "Collect more rows of the rare class; no setting makes up for what few rows do not tell.",
    "He & Garcia 2009, Learning from Imbalanced Data",
)

CHECK_LABELS = Remedy(
    "",
    "Look at the rows whose neighbours disagree with them, and mend their labels.",
    "Northcutt, Jiang & Chuang 2021, arXiv:1911.00068",
)

SEPARATE = Remedy(
    "",
    "Remove repeated rows from the data before it is split; no setting can.",
    "Kaufman et al. 2012, Leakage in Data Mining",
)
