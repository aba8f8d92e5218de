/* page.S - the files of page/ as bytes of the plugin. SPDX-License-Identifier: GPL-3.0-or-later */
    .section .rodata
    .macro file name, path
    .globl \name, \name\()_end
    .hidden \name, \name\()_end
\name:
    .incbin "\path"
\name\()_end:
    .byte 0
    .endm
    file page_html, "index.html"
    file page_js, "radz.js"
    file page_css, "radz.css"
    file explorer_js, "explorer.js"
    .section .note.GNU-stack, "", @progbits
