"""Class-conditional models of Fashion-MNIST that converge on a CPU, and a judge of their pictures.

Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747; MIT) is read from the files that Debian's
package `dataset-fashion-mnist` installs, or from a folder with files of the same names.
"""
