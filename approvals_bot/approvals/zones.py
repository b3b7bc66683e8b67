"""Time zones in words: `18:36 in São Paulo` rather than `18:36 -03`. Pure.

Letters don't name a zone: three countries write IST, and half of the world's zones have no letters at all. A city does.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# Where the last part of a zone's id isn't the English name: from Unicode's CLDR 46, its exemplar cities.
_CITIES = {
    "Africa/Lome": "Lomé",
    "Africa/Ndjamena": "N’Djamena",
    "Africa/Sao_Tome": "São Tomé",
    "America/Araguaina": "Araguaína",
    "America/Argentina/Cordoba": "Córdoba",
    "America/Argentina/Rio_Gallegos": "Río Gallegos",
    "America/Argentina/Tucuman": "Tucumán",
    "America/Asuncion": "Asunción",
    "America/Bahia_Banderas": "Bahía de Banderas",
    "America/Belem": "Belém",
    "America/Bogota": "Bogotá",
    "America/Cancun": "Cancún",
    "America/Ciudad_Juarez": "Ciudad Juárez",
    "America/Cuiaba": "Cuiabá",
    "America/Curacao": "Curaçao",
    "America/Eirunepe": "Eirunepé",
    "America/Lower_Princes": "Lower Prince’s Quarter",
    "America/Maceio": "Maceió",
    "America/Mazatlan": "Mazatlán",
    "America/Merida": "Mérida",
    "America/Miquelon": "Saint-Pierre",
    "America/Noronha": "Fernando de Noronha",
    "America/Santarem": "Santarém",
    "America/Sao_Paulo": "São Paulo",
    "America/Scoresbysund": "Ittoqqortoormiit",
    "America/St_Barthelemy": "St. Barthélemy",
    "America/St_Johns": "St. John’s",
    "America/St_Kitts": "St. Kitts",
    "America/St_Lucia": "St. Lucia",
    "America/St_Thomas": "St. Thomas",
    "America/St_Vincent": "St. Vincent",
    "Asia/Aqtau": "Aktau",
    "Asia/Calcutta": "Kolkata",
    "Asia/Ho_Chi_Minh": "Ho Chi Minh City",
    "Asia/Hovd": "Khovd",
    "Asia/Katmandu": "Kathmandu",
    "Asia/Macau": "Macao",
    "Asia/Qostanay": "Kostanay",
    "Asia/Qyzylorda": "Kyzylorda",
    "Asia/Rangoon": "Yangon",
    "Asia/Saigon": "Ho Chi Minh City",
    "Asia/Urumqi": "Ürümqi",
    "Atlantic/Canary": "the Canaries",
    "Atlantic/Faroe": "the Faroes",
    "Atlantic/St_Helena": "St. Helena",
    "Europe/Busingen": "Büsingen",
    "Europe/Chisinau": "Chișinău",
    "Europe/Isle_of_Man": "the Isle of Man",
    "Europe/Kiev": "Kyiv",
    "Europe/Tirane": "Tirana",
    "Indian/Comoro": "the Comoros",
    "Indian/Mahe": "Mahé",
    "Indian/Reunion": "Réunion",
    "Pacific/Galapagos": "the Galápagos Islands",
    "Pacific/Marquesas": "the Marquesas Islands",
    "Pacific/Noumea": "Nouméa",
}

_NO_CITIES = ("Brazil", "Canada", "Chile", "Etc", "Mexico", "SystemV", "US")
"""Areas whose zones are named for an offset or a part of a continent."""


def zone_of(name: str) -> ZoneInfo:
    """Return the zone of this name; UTC if it is unknown."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def zone_words(at: datetime) -> str:
    """Return the words for a local time: `in São Paulo`, `UTC`, `UTC+05:30`. `at` is in the zone to name.

    Where the clocks go back, an hour comes twice, so the offset says which one is meant: `in Berlin (UTC+02:00)`.
    """
    key = at.tzinfo.key if isinstance(at.tzinfo, ZoneInfo) else ""
    area, _, place = key.partition("/")
    if not place or area in _NO_CITIES:
        return _offset(at)
    city = _CITIES.get(key) or place.rpartition("/")[2].replace("_", " ")
    comes_twice = at.replace(fold=0).utcoffset() > at.replace(fold=1).utcoffset()  # type: ignore[operator]  # zones have one
    return f"in {city} ({_offset(at)})" if comes_twice else f"in {city}"


def _offset(at: datetime) -> str:
    offset = at.utcoffset()
    if not offset:
        return "UTC"
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    return f"UTC{'−' if offset < timedelta() else '+'}{hours:02}:{minutes:02}"  # a minus, as people write it
