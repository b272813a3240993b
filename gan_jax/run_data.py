"""The data of a run, by its config: opened, moved, by field and part, and the fields that its game reads."""

from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import games, specs
from gan_jax.errors import UserError


def open_data(config: ConfigDict, split: str = ""):
    """The run's data, a Dataset, or Joined of `config.data.parts`; or other splits of the same, see `open_field`."""
    from gan_jax import data

    parts = data_sections(config)
    if "" in parts:
        return open_field(config, "", split)
    return data.Joined({name: open_field(config, name, split) for name in parts})


def move_data(config: ConfigDict, place: str) -> None:
    """Puts the place where a run's data lie now into its config.

    Args:
      config: of the run.
      place: a folder or .zip, or the folder of TFDS sets; of data with parts `a=PATH,b=PATH`.
    Raises:
      UserError: no such part, or data that lie nowhere.
    """
    sections = data_sections(config)
    places = {"": place} if "" in sections else dict(text.partition("=")[::2] for text in place.split(","))
    for part, path in places.items():
        if part not in sections or not path:
            raise UserError(f"--data={place}: expected PART=PATH with commas between, of {', '.join(sections)}")
        section, kind = sections[part], sections[part].name.partition(":")[0]
        if kind not in ("folder", "tfds", "digits"):
            raise UserError(f"--data={place}: the data {section.name!r} lie in no place; leave the flag out")
        key, value = ("name", f"folder:{path}") if kind == "folder" else ("dir", path)
        section[key] = value


def open_field(config: ConfigDict, name: str, split: str = ""):
    """The Dataset that a field of the run's data is of; its examples have that field first, by its name in the set.

    Args:
      config: of the run.
      name: of a field; one of `config.data.parts` is named after its part.
      split: of the whole data: one, or as many with commas between as there are parts; empty: those trained on.
    """
    from gan_jax import data

    sections = data_sections(config)
    part = "" if "" in sections else name
    section, key = sections[part].copy_and_resolve_references(), f"data.parts.{part}" if part else "data"
    section.split = splits(config, split)[part]
    return configs.build(data.open_dataset, section, key, name=section.name)


def data_section(config: ConfigDict, field: str) -> ConfigDict:
    """The section of the part that a field is named after; that of all data where they have no parts."""
    sections = data_sections(config)
    return sections.get(field) or sections[""]


def data_sections(config: ConfigDict) -> dict[str, ConfigDict]:
    """The section of each part of the data; that of data without parts has the name ''."""
    return dict(config.data.parts.items()) if "parts" in config.data else {"": config.data}


def splits(config: ConfigDict, split: str) -> dict[str, str]:
    """The split of each part of the data, '' being all of it; those trained on where `split` is empty.

    Raises:
      UserError: there are several, and not as many as parts.
    """
    sections = data_sections(config)
    if not split:
        return {part: section.split for part, section in sections.items()}
    if "" in sections:
        return {"": split}
    names = split.split(",")
    if len(names) not in (1, len(sections)):
        raise UserError(f"split={split!r}: expected one, or one for each of {', '.join(sections)} with commas between")
    return dict(zip(sections, names * len(sections) if len(names) == 1 else names, strict=True))


def data_spec(config: ConfigDict, dataset) -> specs.Spec:
    """The fields of the data that the run's game reads.

    Raises:
      UserError: the data has no such field, a label of a single class, which says nothing, or a class without
        examples, in games with `EVERY_CLASS`.
    """
    game = games.find(config.game)
    try:
        spec = specs.chosen(dataset.spec, game.reads(config), dataset.name)
    except UserError as error:  # what was left out of the data may be what is missing
        raise UserError("; ".join([str(error), *dataset.notes])) from error
    every = getattr(game, "EVERY_CLASS", False)
    specs.check_classes(spec, dataset, f"the game {config.game!r}", every=every)
    return spec
