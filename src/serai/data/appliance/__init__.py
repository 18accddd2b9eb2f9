"""The storage appliance: a directory served over HTTP and WebDAV by any user, with guaranteed space (NeST).

After Bent, Venkataramani, LeRoy, Roy, Stanley, Arpaci-Dusseau, Arpaci-Dusseau and Livny, "Flexibility, Manageability,
and Performance in a Grid Storage Appliance" (HPDC 2002). `serve` starts it; `webdav` answers requests; `files` does
what they ask below one directory (`paths`), for who may (`rights`, `keys`), within the space there is (`lots`, `book`).
"""
