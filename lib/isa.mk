# Instruction sets by file name; everything else is portable. SPDX-License-Identifier: Apache-2.0
%_shani.o: ISA := -msha -msse4.1
%_avx2.o: ISA := -mavx2 -mfma -mf16c
%_avxvnni.o: ISA := -mavx2 -mfma -mf16c -mavxvnni
AVX512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
%_avx512.o: ISA := $(AVX512)
%_avx512_vnni.o: ISA := $(AVX512) -mavx512vnni
%_avx512_bf16.o: ISA := $(AVX512) -mavx512bf16
