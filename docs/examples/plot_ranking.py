"""
Ranking: LambdaMART against the order of a single column
========================================================

Results of 200 queries are to be ordered by relevance. Boosting with the gradients of NDCG (Burges 2010)
learns from pairs within a query; the curve is the NDCG of queries that it was not fitted on.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ndcg_score

from fullspan.estimators import XGBRanker

rng = np.random.default_rng(0)
n_queries, n_results = 200, 20
X = rng.normal(size=(n_queries * n_results, 6))
hidden = X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(0, 0.5, len(X))
relevance = np.clip(np.round(hidden + 1), 0, 4)
query = np.repeat(np.arange(n_queries), n_results)
fitted_on = query < 150


def ndcg(scores):
    """Mean NDCG at 10 over the held-out queries."""
    shape = (-1, n_results)
    return ndcg_score(relevance[~fitted_on].reshape(shape), scores.reshape(shape), k=10)


rounds = [1, 2, 5, 10, 20, 40, 80]
fig, ax = plt.subplots()
for objective in ("rank:ndcg", "rank:pairwise"):
    model = XGBRanker(objective=objective, n_estimators=rounds[-1], learning_rate=0.1, max_depth=4)
    model.fit(X[fitted_on], relevance[fitted_on], qid=query[fitted_on])
    ax.plot(
        rounds,
        [ndcg(model.predict(X[~fitted_on], iteration_range=(0, n))) for n in rounds],
        marker="o",
        label=objective,
    )
ax.axhline(ndcg(X[~fitted_on, 0]), color="grey", linestyle="--", label="ordered by the first column")
ax.set(xlabel="trees", ylabel="NDCG@10 on held-out queries", title="Learning to rank")
ax.legend()
plt.show()
