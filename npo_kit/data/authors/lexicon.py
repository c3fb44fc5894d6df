"""The words for the fictional authors: names, places, titles, professions, habits."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

PER_REGION = 600  # authors of a region, and of a genre, for which names and titles suffice
BYSTANDERS = 12  # people of a region who are no authors: mentors and wrong names
UNWRITTEN = 80  # titles of a genre that no author wrote: wrong titles


class Region(NamedTuple):
    """A country and its people's names; every field but the first two is a list of words."""

    country: str
    nation: str  # the adjective: "a Norwegian author"
    cities: str
    women: str  # first names
    stems: str  # a surname is a stem and an ending
    men: str
    endings: str


_REGIONS = """
Norway / Norwegian / Oslo Bergen Trondheim Stavanger Kristiansand Drammen
Ingrid Solveig Astrid Sigrid Liv Marit Ragnhild Tone / Sol Lin Berg Hav Ek Nord Sten Gran
Leif Haakon Sverre Torbjorn Eirik Gunnar Olav Knut / vik stad dal heim rud mo

Finland / Finnish / Helsinki Turku Tampere Oulu Lahti Kuopio
Aino Helmi Kaisa Tuuli Marjatta Venla Elina Sirkka / Kosk Leht Niem Halm Vaar Saar Rant Kall
Eero Veikko Tapio Jukka Antti Pekka Heikki Toivo / inen ela onen ola anen ala

Ireland / Irish / Dublin Cork Galway Limerick Waterford Kilkenny
Niamh Aoife Siobhan Maeve Orla Deirdre Brigid Nuala / Bran Kil Dun Cal Fin Der Tor Gar
Cormac Declan Eamon Fergal Liam Padraig Ronan Tadhg / nan more leigh lan ley roy

Portugal / Portuguese / Lisbon Porto Coimbra Braga Faro Aveiro
Leonor Beatriz Filipa Joana Catarina Teresa Luisa Matilde / Alm Ferr Bal Cort Mont Sever Carv Lour
Duarte Rui Afonso Tiago Henrique Vasco Bernardo Manuel / eira eiro inho ado al enha

Italy / Italian / Turin Bologna Naples Genoa Verona Palermo
Chiara Giulia Lucia Ornella Silvana Paola Bianca Loredana / Bell Mont Cast Ross Ferr Guar Sant Vald
Matteo Lorenzo Enzo Sandro Giorgio Fabio Dario Renato / ini elli ani etti ucci ieri

Turkey / Turkish / Istanbul Izmir Ankara Bursa Konya Antalya
Elif Zeynep Ayla Defne Nermin Sevgi Leyla Gonul / Ak Kara Demir Bay Gun Kor Oz Al
Emre Cem Murat Selim Yusuf Tarik Levent Hakan / soy tepe han tan kaya dag

Japan / Japanese / Kyoto Osaka Sapporo Nagoya Sendai Kobe
Haruko Yumi Sachiko Michiko Naomi Aiko Reiko Emiko / Taka Naka Kita Mori Hara Yama Ishi Matsu
Kenji Hiroshi Takeo Shinji Makoto Ryota Isamu Daichi / mura da shima moto zawa no

Nigeria / Nigerian / Lagos Ibadan Abeokuta Ilorin Akure Osogbo
Folake Bisi Yetunde Simi Ronke Titi Morenike Abeni / Ade Olu Ayo Omo Akin Oye Ogun Ife
Femi Kunle Segun Dayo Kayode Jide Gbenga Rotimi / bayo wale tunde dele lola niyi

India / Indian / Mumbai Pune Nagpur Nashik Kolhapur Thane
Meera Kavita Anjali Sunita Vasudha Ketaki Leela Shobha / Bel Dev Man Ran Sav Nar Kal Gad
Arun Vikram Sanjay Mahesh Anand Dinesh Ravi Govind / kar ekar wade gaonkar dhar are

Mexico / Mexican / Puebla Oaxaca Guadalajara Merida Monterrey Veracruz
Ximena Guadalupe Rosario Elvira Marisol Carmen Paloma Itzel / Mend Vald Gall Sol Ram Cast Cord Mor
Joaquin Emilio Rodrigo Fermin Octavio Esteban Gilberto Ramon / ano illo edo ena ero ino
"""
REGIONS = [Region(*re.split(" / |\n", text)) for text in _REGIONS.strip().split("\n\n")]


def _table(text: str) -> dict[str, str]:
    """Read a text of entries `name: words`, whose further lines are indented."""
    return dict(re.findall(r"^(\S.*?): (.*(?:\n +.*)*)", text, re.MULTILINE))


GENRES = _table(  # genre -> the nouns of its titles
    """
crime fiction: Witness Alibi Locksmith Verdict Informant Ransom Fingerprint Detective Forger Suspect
    Poison Burglar Confession Motive
historical fiction: Regiment Empress Messenger Cathedral Rebellion Merchant Throne Siege Rider
    Scribe Treaty Garrison Duke Banner
science fiction: Orbit Satellite Engine Signal Colony Pilot Planet Reactor Machine Comet Robot
    Telescope Station Voyager
fantasy: Dragon Wizard Dagger Citadel Spell Oracle Crown Minstrel Sorcerer Amulet Changeling
    Prophecy Griffin Phoenix
poetry: Heron Psalm Echo Lullaby Willow Moon Feather Candle Sparrow Hymn Petal Elegy Tide
    Nightingale
travel writing: Caravan Road Atlas Ferry Passport Map Voyage Desert Suitcase Steamer Railway Pilgrim
    Journey Lodge
romance: Wedding Locket Bride Kiss Promise Dance Ring Proposal Sweetheart Engagement Honeymoon
    Bouquet Courtship Suitor
horror: Crypt Coffin Phantom Vampire Graveyard Curse Skeleton Nightmare Scream Monster Tomb Asylum
    Mask Cellar
nature writing: Meadow Badger Forest Beetle Glacier Marsh Owl Falcon Oak Salmon Moth Hedgerow Otter
    Heath
children's literature: Kitten Teapot Rabbit Balloon Puppet Hedgehog Kite Snowman Duckling Button
    Pirate Umbrella Tortoise Goblin
"""
)
_WORDS = _table(
    """
adjective: Silent, Hollow, Amber, Last, Hidden, Broken, Crimson, Patient, Borrowed, Distant,
    Forgotten, Golden, Quiet, Restless, Scarlet, Second, Secret, Seventh, Silver, Sleeping, Stolen,
    Stubborn, Tender, Unfinished, Vanishing, Wandering, White, Winter, Wooden, Burning, Blue,
    Bright, Careful, Empty, Faithful, Gentle, Iron, Lonely, Northern, Paper
tail: of the North, at Midnight, in Winter, by the River, under the Snow, after the War,
    beyond the Hills, on the Bridge, in the Rain, at the Border, of the Harbour, without a Name,
    of the Valley, in the Mirror, before Dawn, from the South, across the Lake, in the Attic,
    on the Island, behind the Door, under the Stairs, of the Orchard, near the Sea, in the Wall,
    at the Crossroads, among the Reeds, in the Fog, on the Night Train, of Seven Streets,
    in the Garden
emblem: Quill, Laurel, Medal, Inkwell, Crown, Star
profession: baker, carpenter, teacher, tailor, doctor, judge, farmer, gardener, librarian, chemist,
    lawyer, painter, pianist, nurse, surgeon, weaver, potter, miner, butcher, bookseller,
    clockmaker, photographer, journalist, translator, beekeeper, train driver, shepherd, violinist,
    dentist, mechanic
subject: law, medicine, history, botany, philosophy, music, physics, geography, chemistry, theology,
    architecture, economics, engineering, mathematics
home: a stone farmhouse, a converted chapel, an old watermill, a wooden cabin, a former schoolhouse,
    a small cottage, a disused railway station, an abandoned monastery, a white villa,
    a restored windmill, a brick tower, a former inn
habit: in green ink, with a goose quill, on an old typewriter, standing at a kitchen table,
    in bed before breakfast, on the backs of envelopes, in a parked car, at a railway station,
    with the radio on, by candlelight, in a garden shed, on a slow train, between midnight and dawn,
    with a cat on the desk, in a public library, with a blunt pencil, on rolls of wallpaper,
    in a noisy cafe
theme: the cost of loyalty, family secrets, life in exile, the fear of growing old,
    a lost childhood, the pull of the sea, broken promises, the search for a father,
    the end of a friendship, love across borders, guilt and forgiveness, the silence after a war,
    the dignity of work, memory and forgetting, the loneliness of cities,
    the courage of ordinary people, faith and doubt, the power of rumour
"""
)
WORDS = {kind: re.split(r",\s+", words) for kind, words in _WORDS.items()}


def random_by(*key: object) -> random.Random:
    """Return a generator seeded by text, the same in every process and Python version."""
    return random.Random(" ".join(map(str, ("npo_kit authors", *key))))


def shuffled(items: Iterable[Any], *key: object) -> list[Any]:
    """Return the items in an order that the key decides."""
    items = list(items)
    random_by(*key).shuffle(items)
    return items


@lru_cache(maxsize=64)
def people(seed: int, region: int) -> list[tuple[str, str, bool]]:
    """Return (first name, surname, is a woman) of a region's authors, then of its bystanders."""
    place = REGIONS[region]
    first_names = [(name, True) for name in place.women.split()]
    first_names += [(name, False) for name in place.men.split()]
    surnames = [stem + end for stem in place.stems.split() for end in place.endings.split()]
    all_of_them = [(first, last, woman) for first, woman in first_names for last in surnames]
    return shuffled(all_of_them, seed, "people", place.country)[: PER_REGION + BYSTANDERS]


@lru_cache(maxsize=64)
def titles(seed: int, genre: str) -> list[str]:
    """Return a genre's titles: two for each of its authors, then some that nobody wrote."""
    nouns = GENRES[genre].split()
    described = [f"The {adjective} {noun}" for adjective in WORDS["adjective"] for noun in nouns]
    short = described + [f"The {noun} {tail}" for noun in nouns for tail in WORDS["tail"]]
    long = [
        f"{title} {tail}"
        for title in described
        for tail in WORDS["tail"]
        if not {*title.split()} & {*tail.split()}  # not The Winter Otter in Winter
    ]
    n_long = 2 * PER_REGION + UNWRITTEN - len(short)
    long = random_by(seed, "long titles", genre).sample(long, n_long)
    return shuffled(short + long, seed, "titles", genre)
